package admin

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"github.com/bulkhead-ai/bulkhead/configs/manifest"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin/wire"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/apikey"
	"github.com/danielgtaylor/huma/v2"
)

type createKeyInput struct {
	Writing
	Body wire.CreateKey
}

type keyCreatedOutput struct{ Body wire.KeyCreated }

type keyInput struct {
	Writing
	ID string `path:"id" maxLength:"64"`
}

type keyOutput struct{ Body wire.Key }

type listKeysInput struct {
	Tenant string `query:"tenant" doc:"default: all tenants"`
}

type keysOutput struct{ Body wire.Keys }

func (a *API) keyRoutes() {
	create := operation("create-key", http.MethodPost, "/keys", "Create a key; the answer is the only time that it is shown")
	create.DefaultStatus = http.StatusCreated
	huma.Register(a.huma, create, a.createKey)
	rotate := operation("rotate-key", http.MethodPost, "/keys/{id}/rotate", "Create a successor with the same scopes; the old key stays until it is revoked")
	rotate.DefaultStatus = http.StatusCreated
	huma.Register(a.huma, rotate, a.rotateKey)
	huma.Register(a.huma, operation("revoke-key", http.MethodPost, "/keys/{id}/revoke", "End a key for ever; it is refused everywhere when this answers"), a.revokeKey)
	huma.Register(a.huma, operation("list-keys", http.MethodGet, "/keys", "List keys"), a.listKeys)
}

func (a *API) createKey(ctx context.Context, in *createKeyInput) (*keyCreatedOutput, error) {
	b := in.Body
	if b.Owner != "" && !manifest.ValidOwner(b.Owner) {
		return nil, invalid("owner", "is no e-mail address")
	}
	k := command.Key{
		Tenant: b.Tenant, Project: b.Project, Env: b.Env, Account: b.ServiceAccount,
		Owner: b.Owner, Models: b.Models, Endpoints: b.Endpoints,
	}
	if !b.ExpiresAt.IsZero() {
		k.ExpiresAt = b.ExpiresAt.UnixMilli()
	}
	return a.mint(ctx, "create key", in.op(), k)
}

// mint gives the key an id that follows from the write's name: a repeated write
// finds the key there and is refused with its id, so that a key whose secret was
// lost on the way can be revoked.
func (a *API) mint(ctx context.Context, what, op string, k command.Key) (*keyCreatedOutput, error) {
	sum := sha256.Sum256([]byte("bulkhead/key-id\x00" + op))
	k.ID = bulkhead.KeyID("key_" + hex.EncodeToString(sum[:10]))
	if old, ok := a.cfg.Cluster.State().Key(k.ID); ok {
		return nil, huma.Error409Conflict(fmt.Sprintf("this write was made already: it created %s, whose key was shown then; revoke it and create another", old.ID))
	}
	secret, hash := apikey.NewKey()
	k.Hash, k.Display = hash[:], apikey.Display(secret)
	if err := a.hasten(ctx, what, op, &command.CreateKey{Key: k}, k.Tenant); err != nil {
		return nil, err
	}
	return &keyCreatedOutput{wire.KeyCreated{ID: k.ID, Key: secret}}, nil
}

// rotateKey gives the successor as long a life as the old key had.
func (a *API) rotateKey(ctx context.Context, in *keyInput) (*keyCreatedOutput, error) {
	old, ok := a.cfg.Cluster.State().Key(bulkhead.KeyID(in.ID))
	if !ok {
		return nil, huma.Error404NotFound(fmt.Sprintf("there is no key %.64q", in.ID))
	}
	if old.RevokedAt != 0 {
		return nil, huma.Error409Conflict("the key is revoked; create a new one")
	}
	k := command.Key{
		Tenant: old.Tenant, Project: old.Project, Env: old.Env, Account: old.Account,
		Owner: old.Owner, Models: old.Models, Endpoints: old.Endpoints,
	}
	if old.ExpiresAt != 0 {
		k.ExpiresAt = time.Now().UnixMilli() + old.ExpiresAt - old.CreatedAt
	}
	return a.mint(ctx, "rotate key", in.op(), k)
}

func (a *API) revokeKey(ctx context.Context, in *keyInput) (*keyOutput, error) {
	id := bulkhead.KeyID(in.ID)
	if _, err := a.propose(ctx, "revoke key", in.op(), &command.RevokeKey{ID: id}); err != nil {
		return nil, err
	}
	// Only now: before, this node may not have known the key.
	k, _ := a.cfg.Cluster.State().Key(id)
	if err := a.await(ctx, "revoke key", []bulkhead.TenantID{k.Tenant}); err != nil {
		return nil, err
	}
	return &keyOutput{keyOf(&k)}, nil
}

func (a *API) listKeys(_ context.Context, in *listKeysInput) (*keysOutput, error) {
	out := &keysOutput{wire.Keys{Keys: []wire.Key{}}}
	a.cfg.Cluster.State().RangeKeys(func(k *command.Key) bool {
		if in.Tenant == "" || string(k.Tenant) == in.Tenant {
			out.Body.Keys = append(out.Body.Keys, keyOf(k))
		}
		return true
	})
	return out, nil
}

func keyOf(k *command.Key) wire.Key {
	return wire.Key{
		ID: k.ID, Display: k.Display, Tenant: k.Tenant, Project: k.Project, Env: k.Env,
		ServiceAccount: k.Account, Owner: k.Owner, Models: k.Models, Endpoints: k.Endpoints,
		CreatedAt: timeOf(k.CreatedAt), ExpiresAt: timeOf(k.ExpiresAt), RevokedAt: timeOf(k.RevokedAt),
	}
}

func timeOf(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}
