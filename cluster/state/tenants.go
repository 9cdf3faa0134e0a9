package state

import (
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"github.com/bulkhead-ai/bulkhead/worker/receipt"
)

const (
	maxWrapped = 4 << 10 // bytes of a wrapped data key
	maxNodeLen = 128     // bytes of a node's name

	maxEpochStep = 1 << 32 // epochs that a restored snapshot may lack
)

// tenant is what the state machine keeps of a tenant besides its object. A
// deleted tenant stays as a tombstone without its data key: its last receipts
// can still be booked, and its epoch and slot are never used again, so nothing
// of it can be mistaken for a later tenant of the same name.
type tenant struct {
	Deleted    bool           `json:"deleted,omitempty"`
	Suspended  bool           `json:"suspended,omitempty"`
	Erasing    bool           `json:"erasing,omitempty"`
	Rev        uint64         `json:"rev"`
	Slot       uint32         `json:"slot"`
	Epoch      bulkhead.Epoch `json:"epoch,omitempty"`
	Node       string         `json:"node,omitempty"`
	Assigned   string         `json:"assigned,omitempty"` // a member, or nobody
	PublicKey  []byte         `json:"public_key,omitempty"`
	DataKey    []byte         `json:"data_key,omitempty"`
	ShareID    []byte         `json:"share_id,omitempty"` // with DataKey only
	AppliedSeq uint64         `json:"applied_seq,omitempty"`
	TreeSize   uint64         `json:"tree_size,omitempty"`
	TreeRoot   []byte         `json:"tree_root,omitempty"`
	Frontier   []byte         `json:"frontier"` // receipt.Frontier, encoded

	Voters   []command.Replica `json:"voters,omitempty"` // sorted
	Learners []command.Replica `json:"learners,omitempty"`
}

// createTenant starts the record of a tenant. One that follows a deleted tenant
// of the same name gets a new slot and an empty ledger; only the epoch goes on,
// so that a straggler of the old one stays fenced.
func (t *tx) createTenant(id bulkhead.TenantID) error {
	frontier, err := new(receipt.Frontier).MarshalBinary()
	if err != nil {
		return fmt.Errorf("tree of tenant %s: %w", id, err)
	}
	rec := tenant{Slot: t.slots, Frontier: frontier}
	if old, ok := t.tenants.get(string(id)); ok {
		rec.Epoch = old.Epoch
	}
	t.slots++
	t.putTenant(id, &rec)
	return nil
}

// dropTenant turns the record into a tombstone. The wrapped data key goes:
// without it the tenant's log is ciphertext for ever, and nobody need keep it.
func (t *tx) dropTenant(id bulkhead.TenantID) {
	rec, _ := t.tenants.get(string(id))
	next := *rec
	next.Deleted, next.Erasing, next.DataKey, next.ShareID = true, false, nil, nil
	next.Assigned, next.Voters, next.Learners = "", nil, nil
	t.putTenant(id, &next)
}

// putTenant stores a record as changed by this command.
func (t *tx) putTenant(id bulkhead.TenantID, rec *tenant) {
	rec.Rev = t.index
	t.keepTenant(id, rec)
}

func (t *tx) touchTenant(id bulkhead.TenantID) {
	if n := len(t.touched.tenants); n == 0 || t.touched.tenants[n-1] != id {
		t.touched.tenants = append(t.touched.tenants, id)
	}
}

// bumpTenant says that something which the tenant's policy depends on changed.
func (t *tx) bumpTenant(id bulkhead.TenantID) {
	if rec, ok := t.tenants.get(string(id)); ok && rec.Rev != t.index {
		next := *rec
		t.putTenant(id, &next)
	}
}

// liveTenant answers the record of a tenant that exists.
func (t *tx) liveTenant(id bulkhead.TenantID) (tenant, error) {
	rec, ok := t.tenants.get(string(id))
	if !ok || rec.Deleted {
		return tenant{}, bulkhead.E(bulkhead.NotFound, "tenant_not_found", "There is no tenant "+quote(string(id))+".")
	}
	return *rec, nil
}

func (t *tx) setSuspended(cmd *command.SetSuspended) error {
	rec, err := t.liveTenant(cmd.Tenant)
	if err != nil {
		return err
	}
	if rec.Suspended == cmd.Suspended {
		return nil
	}
	rec.Suspended = cmd.Suspended
	t.putTenant(cmd.Tenant, &rec)
	return nil
}

func (t *tx) setDataKey(cmd *command.SetDataKey) (any, error) {
	rec, err := t.liveTenant(cmd.Tenant)
	if err != nil {
		return nil, err
	}
	if len(rec.DataKey) > 0 {
		return command.DataKey{Wrapped: rec.DataKey, ShareID: rec.ShareID}, nil
	}
	if err := t.notDestroyed(cmd.Tenant); err != nil {
		return nil, err
	}
	if n := len(cmd.Wrapped); n == 0 || n > maxWrapped {
		return nil, invalid("wrapped", "A wrapped data key has 1 to 4096 bytes.")
	}
	if len(cmd.ShareID) != sha256.Size {
		return nil, invalid("share_id", "A key share is named by its SHA-256 of 32 bytes.")
	}
	rec.DataKey, rec.ShareID = cmd.Wrapped, cmd.ShareID
	t.keepTenant(cmd.Tenant, &rec)
	return command.DataKey{Wrapped: rec.DataKey, ShareID: rec.ShareID}, nil
}

func (t *tx) beginEpoch(cmd *command.BeginEpoch) (any, error) {
	rec, err := t.liveTenant(cmd.Tenant)
	if err != nil {
		return nil, err
	}
	if len(cmd.PublicKey) != ed25519.PublicKeySize {
		return nil, invalid("public_key", "The key of an epoch is an Ed25519 public key of 32 bytes.")
	}
	if cmd.Node == "" || len(cmd.Node) > maxNodeLen {
		return nil, invalid("node", "An epoch runs on a node with a name of at most 128 bytes.")
	}
	if t.cluster != nil && rec.Assigned != cmd.Node {
		return nil, bulkhead.E(bulkhead.Conflict, "not_assigned",
			"Tenant "+quote(string(cmd.Tenant))+" is not assigned to node "+quote(cmd.Node)+".")
	}
	if err := t.notDestroyed(cmd.Tenant); err != nil {
		return nil, err
	}
	if cmd.After > rec.Epoch+maxEpochStep {
		return nil, invalid("after", "No copy of a journal can know an epoch so far ahead.")
	}
	rec.Epoch = max(rec.Epoch, cmd.After) + 1
	rec.Node, rec.PublicKey = cmd.Node, cmd.PublicKey
	t.keepTenant(cmd.Tenant, &rec)
	return rec.Epoch, nil
}

// keepTenant stores a record whose change does not concern the policy, so Rev
// stays: the worker must not be asked to apply what it cannot see.
func (t *tx) keepTenant(id bulkhead.TenantID, rec *tenant) {
	was := ""
	if old, ok := t.tenants.get(string(id)); ok {
		was = old.Assigned
	}
	if rec.Assigned != was {
		t.byNode = t.byNode.del(nodeTenantKey(was, id))
		if rec.Assigned != "" {
			t.byNode = t.byNode.put(nodeTenantKey(rec.Assigned, id), true)
		}
	}
	t.tenants = t.tenants.put(string(id), rec)
	t.touchTenant(id)
}

func invalid(param, message string) error {
	e := bulkhead.E(bulkhead.InvalidRequest, "invalid_command", message)
	e.Param = param
	return e
}
