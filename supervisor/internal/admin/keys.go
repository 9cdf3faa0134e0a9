package admin

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin/wire"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/apikey"
	"go.uber.org/zap"
)

// defaultOverlap is how long an old key stays valid beside its successor when
// nobody says: long enough for a rollout, and it ends by itself.
const defaultOverlap = 24 * time.Hour

type createKeyInput struct {
	Writing
	Body wire.CreateKey
}

type keyCreatedOutput struct{ Body wire.KeyCreated }

type keyInput struct {
	Writing
	ID string `path:"id" maxLength:"64"`
}

type rotateKeyInput struct {
	Writing
	ID   string `path:"id" maxLength:"64"`
	Body *wire.RotateKey
}

type keyOutput struct{ Body wire.Key }

func (a *API) keyRoutes() {
	create := operation("create-key", http.MethodPost, "/keys", "Create a key; the answer is the only time that it, or the link to it, is shown")
	create.DefaultStatus = http.StatusCreated
	guarded(a, create, a.aboutCreate, a.createKey)
	rotate := operation("rotate-key", http.MethodPost, "/keys/{id}/rotate", "Create a successor with the same scopes; both keys are valid for a while")
	rotate.DefaultStatus = http.StatusCreated
	guarded(a, rotate, func(_ context.Context, in *rotateKeyInput) (matter, error) { return a.aboutKey(&in.Writing, in.ID) }, a.rotateKey)
	guarded(a, operation("revoke-key", http.MethodPost, "/keys/{id}/revoke", "End a key for ever; it is refused everywhere when this answers"),
		func(_ context.Context, in *keyInput) (matter, error) { return a.aboutKey(&in.Writing, in.ID) }, a.revokeKey)
	guarded(a, operation("revoke-keys", http.MethodPost, "/keys/revoke", "End all keys of a person or a service account; they are refused everywhere when this answers"),
		a.aboutRevokeKeys, a.revokeKeys)
	guarded(a, operation("list-keys", http.MethodGet, "/keys", "List keys"), a.aboutKeys("list-keys"), a.listKeys)
	guarded(a, operation("key-rotations", http.MethodGet, "/keys/rotations", "List old keys that are still valid beside their successors, and whether they are used"),
		a.aboutKeys("key-rotations"), a.keyRotations)
	guarded(a, operation("unwrap-key", http.MethodPost, "/unwrap", "Spend the token of a link and get its key; no other credential is needed"), a.aboutUnwrap(), a.unwrapKey)
	a.orphanRoutes()
}

// aboutCreate gives the write its name, so that the key's id, which follows from
// it, is on record before the key is made.
func (a *API) aboutCreate(ctx context.Context, in *createKeyInput) (matter, error) {
	in.fix()
	b := &in.Body
	m := matter{tenants: []bulkhead.TenantID{b.Tenant}, env: b.Env, object: "Key " + string(keyID(in.op())), after: b}
	if b.Personal {
		m.owner = ownerOf(principalOf(ctx), b)
	}
	return m, a.knownTenant(b.Tenant)
}

// aboutKey is the matter of one key. A key that is not there and one that the
// caller may not know of are answered alike.
func (a *API) aboutKey(w *Writing, id string) (matter, error) {
	w.fix()
	if !strings.HasPrefix(id, "key_") {
		// Perhaps somebody pasted the key itself: then it is in no answer and no event.
		return matter{object: "Key"}, coded(http.StatusNotFound, "key_not_found", "that is no id of a key; ids begin with key_")
	}
	missing := noKey(id)
	v := a.cfg.Cluster.State().View()
	k, ok := v.Key(bulkhead.KeyID(id))
	if !ok {
		return matter{object: "Key " + id}, missing
	}
	m := matter{
		tenants: []bulkhead.TenantID{k.Tenant}, env: k.Env, object: "Key " + id,
		before: keyOf(v, &k), missing: missing,
	}
	if k.Personal {
		m.owner = k.Owner
	}
	return m, nil
}

func noKey(id string) error {
	return coded(http.StatusNotFound, "key_not_found", fmt.Sprintf("there is no key %.64q", id))
}

func (a *API) createKey(ctx context.Context, in *createKeyInput) (*keyCreatedOutput, error) {
	k, err := wanted(a.cfg.Cluster.State().View(), principalOf(ctx), &in.Body, time.Now())
	if err != nil {
		return nil, err
	}
	secret, err := a.name(in.op(), &k)
	if err != nil {
		return nil, err
	}
	if err := a.hasten(ctx, "create key", in.op(), &command.CreateKey{Key: k}, k.Tenant); err != nil {
		return nil, err
	}
	return a.handOver(ctx, in.op(), &k, secret, in.Body.WrapSeconds)
}

// keyID follows from the name of the write: a repeated write finds the key there
// and is refused with its id, so that a key whose secret was lost on the way can
// be revoked.
func keyID(op string) bulkhead.KeyID {
	sum := sha256.Sum256([]byte("bulkhead/key-id\x00" + op))
	return bulkhead.KeyID("key_" + hex.EncodeToString(sum[:10]))
}

// partOp names one of the commands that a write consists of.
func partOp(op, part string) string {
	sum := sha256.Sum256([]byte("bulkhead/part\x00" + op + "\x00" + part))
	return "admin-" + hex.EncodeToString(sum[:16])
}

// name makes a secret for the key, and its id.
func (a *API) name(op string, k *command.Key) (secret string, err error) {
	k.ID = keyID(op)
	if _, ok := a.cfg.Cluster.State().Key(k.ID); ok {
		return "", coded(http.StatusConflict, "key_exists",
			fmt.Sprintf("this write was made already: it created %s, whose key was shown then; revoke it and create another", k.ID))
	}
	secret, hash := apikey.NewKey()
	k.Hash, k.Display = hash[:], apikey.Display(secret)
	return secret, nil
}

// rotateKey gives the successor as long a life as the old key had, within what
// is allowed today.
func (a *API) rotateKey(ctx context.Context, in *rotateKeyInput) (*keyCreatedOutput, error) {
	body := wire.RotateKey{}
	if in.Body != nil {
		body = *in.Body
	}
	v, now := a.cfg.Cluster.State().View(), time.Now()
	old, ok := v.Key(bulkhead.KeyID(in.ID))
	if !ok {
		return nil, noKey(in.ID)
	}
	if err := mayRotate(principalOf(ctx), &old); err != nil {
		return nil, err
	}
	k := old
	k.Successor, k.CreatedBy = "", principalOf(ctx).Name()
	life, err := successorLife(settingsOf(v, old.Tenant, old.Project, old.Env), &old)
	if err != nil {
		return nil, err
	}
	if k.ExpiresAt = 0; life > 0 {
		k.ExpiresAt = now.Add(life).UnixMilli()
	}
	secret, err := a.name(in.op(), &k)
	if err != nil {
		return nil, err
	}
	cmd := &command.RotateKey{Old: old.ID, Key: k, OldExpiresAt: oldEnd(now, body.OverlapSeconds).UnixMilli()}
	if err := a.hasten(ctx, "rotate key", in.op(), cmd, k.Tenant); err != nil {
		return nil, err
	}
	return a.handOver(ctx, in.op(), &k, secret, body.WrapSeconds)
}

// oldEnd is when the old key ends. An end in the past revokes it with the same
// command; a minute in the past is so on every node's clock.
func oldEnd(now time.Time, overlap *int64) time.Time {
	switch {
	case overlap == nil:
		return now.Add(defaultOverlap)
	case *overlap == 0:
		return now.Add(-time.Minute)
	}
	return now.Add(time.Duration(*overlap) * time.Second)
}

func (a *API) revokeKey(ctx context.Context, in *keyInput) (*keyOutput, error) {
	id := bulkhead.KeyID(in.ID)
	if _, err := a.propose(ctx, "revoke key", in.op(), &command.RevokeKey{ID: id}); err != nil {
		return nil, err
	}
	v := a.cfg.Cluster.State().View()
	k, _ := v.Key(id)
	if err := a.await(ctx, "revoke key", []bulkhead.TenantID{k.Tenant}); err != nil {
		return nil, err
	}
	shown := keyOf(v, &k)
	noteAfter(ctx, shown)
	return &keyOutput{shown}, nil
}

// handOver answers the key, or seals it for whoever will have the link. When the
// link cannot be stored, nobody has the key, and it is revoked.
func (a *API) handOver(ctx context.Context, op string, k *command.Key, secret string, wrapSeconds int64) (*keyCreatedOutput, error) {
	v := a.cfg.Cluster.State().View()
	if made, ok := v.Key(k.ID); ok {
		k = &made // with what the state machine filled in
	}
	noteAfter(ctx, keyOf(v, k))
	out := &keyCreatedOutput{wire.KeyCreated{ID: k.ID, Key: secret, KeyExpiresAt: timeOf(k.ExpiresAt)}}
	if wrapSeconds == 0 {
		return out, nil
	}
	link, err := a.wrap(ctx, op, k, secret, time.Duration(wrapSeconds)*time.Second)
	if err == nil {
		out.Body.Key = ""
		out.Body.LinkToken, out.Body.Link, out.Body.ExpiresAt = link.Token(), linkPath+"#"+link.Token(), time.Now().Add(time.Duration(wrapSeconds)*time.Second).UTC().Truncate(time.Millisecond)
		return out, nil
	}
	if _, failed := a.propose(context.WithoutCancel(ctx), "revoke unwrapped key", partOp(op, "give up"), &command.RevokeKey{ID: k.ID}, k.Tenant); failed != nil {
		a.cfg.Log.Error("a key that nobody has is not revoked", zap.String("key", string(k.ID)), zap.Error(failed))
	}
	return nil, a.fail("wrap key", err)
}
