package shares

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"filippo.io/age"
	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/seal"
	"go.uber.org/zap"
)

// escrowFormat is the first line's claim of an escrow file, inside the encryption.
const escrowFormat = "bulkhead-key-shares-v1"

// maxEscrow bounds an escrow file in bytes, far above that of 100,000 tenants.
const maxEscrow = 64 << 20

// Escrow is what an escrow file holds: with a snapshot and the cluster key it is a
// complete backup.
type Escrow struct {
	Format  string    `json:"format"`
	Node    string    `json:"node"` // that wrote it
	SavedAt time.Time `json:"saved_at"`
	Shares  []Entry   `json:"shares"`
}

// Entry is a tenant's key share.
type Entry struct {
	Tenant bulkhead.TenantID `json:"tenant"`
	ID     []byte            `json:"id"`
	Share  []byte            `json:"share"`
}

// Wipe clears the shares.
func (e *Escrow) Wipe() {
	for i := range e.Shares {
		clear(e.Shares[i].Share)
	}
}

// ParseRecipient takes the public key of an age key pair (age1...).
func ParseRecipient(s string) (age.Recipient, error) {
	if strings.ContainsAny(s, "\n\r#") || len(s) > 4096 {
		return nil, errors.New("want one age public key (age1...)")
	}
	all, err := age.ParseRecipients(strings.NewReader(s))
	if err != nil || len(all) != 1 {
		return nil, errors.New("want one age public key (age1...)")
	}
	return all[0], nil
}

// Save answers an escrow file: the shares of all live tenants, encrypted to
// recipient, and how many they are. It fails when a share cannot be had: a backup
// that lacks one would be found out too late.
func (r *Ring) Save(ctx context.Context, recipient age.Recipient) (file []byte, n int, err error) {
	x := r.exchange
	all := Escrow{Format: escrowFormat, Node: x.cfg.Node, SavedAt: time.Now().UTC().Truncate(time.Second)}
	defer all.Wipe()
	view := x.cfg.Cluster.State().View()
	for _, id := range view.Tenants() {
		t, ok := view.Tenant(id)
		if !ok || len(t.ShareID) == 0 || condemned(view, id, t.ShareID) {
			continue
		}
		share, err := x.Get(ctx, id, t.ShareID)
		if isErased(err) && condemned(x.cfg.Cluster.State().View(), id, t.ShareID) {
			continue // since the view was taken
		}
		if err != nil {
			return nil, 0, fmt.Errorf("save the key share of %s: %w", id, err)
		}
		all.Shares = append(all.Shares, Entry{id, t.ShareID, share})
	}
	plain, err := json.Marshal(all)
	if err != nil {
		return nil, 0, fmt.Errorf("encode key shares: %w", err)
	}
	defer clear(plain)
	var out bytes.Buffer
	w, err := age.Encrypt(&out, recipient)
	if err == nil {
		_, err = w.Write(plain)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		return nil, 0, fmt.Errorf("encrypt key shares: %w", err)
	}
	return out.Bytes(), len(all.Shares), nil
}

// ReadEscrow decrypts an escrow file, on the machine of who has the identity, and
// checks all of it. The caller wipes the result.
func ReadEscrow(r io.Reader, identities ...age.Identity) (*Escrow, error) {
	plain, err := age.Decrypt(r, identities...)
	if err != nil {
		return nil, fmt.Errorf("decrypt key shares: %w", err)
	}
	raw, err := io.ReadAll(io.LimitReader(plain, maxEscrow+1))
	defer clear(raw)
	if err != nil {
		return nil, fmt.Errorf("decrypt key shares: %w", err)
	}
	if len(raw) > maxEscrow {
		return nil, fmt.Errorf("key shares: more than %d bytes", maxEscrow)
	}
	var all Escrow
	if err := json.Unmarshal(raw, &all); err != nil || all.Format != escrowFormat {
		all.Wipe()
		return nil, errors.New("key shares: this is no file of `bulkhead cluster shares save`")
	}
	for _, e := range all.Shares {
		k, err := newKey(e.Tenant, e.ID)
		if err == nil {
			err = k.matches(e.Share)
		}
		if err != nil {
			all.Wipe()
			return nil, fmt.Errorf("key share of %q: %w", e.Tenant, err)
		}
	}
	return &all, nil
}

// batchSize is how many shares are sealed together: a sealed value is bounded.
const batchSize = 200

// RestoreContext binds what is uploaded to its purpose; see seal.Seal.
const RestoreContext = "key-shares/restore"

// Seal makes the uploads of a restore: sealed to the cluster, in batches, each
// opened by Ring.Restore.
func (e *Escrow) Seal(publicKey []byte) (batches [][]byte, err error) {
	for rest := e.Shares; len(rest) > 0; {
		n := min(len(rest), batchSize)
		plain, err := json.Marshal(rest[:n])
		if err != nil {
			return nil, fmt.Errorf("encode key shares: %w", err)
		}
		sealed, err := seal.Seal(publicKey, RestoreContext, plain)
		clear(plain)
		if err != nil {
			return nil, fmt.Errorf("seal key shares: %w", err)
		}
		batches, rest = append(batches, sealed), rest[n:]
	}
	return batches, nil
}

// Restored is what became of one share of a restore.
type Restored struct {
	Tenant bulkhead.TenantID
	ID     string // SHA-256 of the share, hexadecimal
	Error  string // for people; empty = a majority of the members has it
}

// Restore stores one batch of a restore on a majority of the members, each share
// on its own: one that was destroyed, says the state or any member that answers,
// is refused and does not keep the others from coming back. An error says that
// the batch is none and nothing was done.
func (r *Ring) Restore(ctx context.Context, sealed []byte) ([]Restored, error) {
	plain, err := r.box.Open(RestoreContext, sealed)
	if err != nil {
		return nil, bulkhead.E(bulkhead.InvalidRequest, "sealed_invalid", "The key shares are not sealed to this cluster.").With(err)
	}
	defer clear(plain)
	var batch []Entry
	if err := json.Unmarshal(plain, &batch); err != nil {
		return nil, bulkhead.E(bulkhead.InvalidRequest, "sealed_invalid", "What was sealed is no batch of key shares.")
	}
	out := make([]Restored, 0, len(batch))
	for _, e := range batch {
		done := Restored{Tenant: e.Tenant, ID: hex.EncodeToString(e.ID)}
		if err := r.exchange.restore(ctx, e); err != nil {
			done.Error = bulkhead.AsError(err).Message
			r.exchange.cfg.Log.Warn("a key share was not restored", zap.String("tenant", string(e.Tenant)), zap.Error(err))
		}
		clear(e.Share)
		out = append(out, done)
	}
	return out, nil
}

// restore asks before it stores: a share that some member knows as destroyed must
// not come to any other first.
func (x *Exchange) restore(ctx context.Context, e Entry) error {
	k, err := newKey(e.Tenant, e.ID)
	if err == nil {
		err = k.matches(e.Share)
	}
	if err != nil {
		return bulkhead.E(bulkhead.InvalidRequest, "share_invalid", "This is not the share that its id names.").With(err)
	}
	had := x.cfg.Store.Has(e.Tenant, e.ID)
	if !had {
		share, err := x.fetch(ctx, e.Tenant, e.ID)
		clear(share)
		if isErased(err) {
			return erased(err)
		}
	}
	err = x.Spread(ctx, e.Tenant, e.ID, e.Share)
	if isErased(err) && !had {
		err = errors.Join(err, x.cfg.Store.Forget(e.Tenant, e.ID))
	}
	return err
}
