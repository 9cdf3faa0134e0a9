package state

import (
	"crypto/ed25519"
	"fmt"
	"slices"
	"strings"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"github.com/bulkhead-ai/bulkhead/worker/receipt"
)

// BookResult is how far a tenant's ledger goes.
type BookResult struct {
	AppliedSeq uint64 // journal records up to here are booked
	TreeSize   uint64 // receipts booked
	TreeRoot   []byte // RFC 6962 root over them; nil while there are none
}

// book applies a batch of receipts exactly once: it must be signed by the
// tenant's current epoch, continue where the ledger ends, and lead to the tree
// that it claims. A batch that is booked already is answered with the ledger's
// position and changes nothing.
//
// A worker is hostile input: a batch that names another tenant's key, or places
// a key where it does not belong, is refused whole.
func (t *tx) book(cmd *command.BookReceipts) (any, error) {
	old, ok := t.tenants.get(string(cmd.Tenant))
	if !ok {
		return nil, bulkhead.E(bulkhead.NotFound, "tenant_not_found", "There is no tenant "+quote(string(cmd.Tenant))+".")
	}
	if old.Epoch == 0 || len(old.PublicKey) != ed25519.PublicKeySize {
		return nil, bulkhead.E(bulkhead.Conflict, "stale_epoch", "The tenant has no epoch whose key could have signed.")
	}
	batch, err := receipt.OpenBatch(cmd.Batch, old.PublicKey)
	if err != nil {
		return nil, badBatch(err)
	}
	if batch.Tenant != cmd.Tenant {
		return nil, badBatch(fmt.Errorf("batch of tenant %s", batch.Tenant))
	}
	if batch.Epoch != old.Epoch {
		return nil, bulkhead.E(bulkhead.Conflict, "stale_epoch", "The receipts are not of the tenant's current epoch.")
	}
	if batch.To <= old.AppliedSeq {
		return old.booked(), nil
	}
	if batch.From != old.AppliedSeq+1 {
		return nil, bulkhead.E(bulkhead.Conflict, "receipts_out_of_order",
			fmt.Sprintf("The ledger continues at record %d; the batch begins at %d.", old.AppliedSeq+1, batch.From))
	}
	rec := *old
	if err := rec.extend(batch); err != nil {
		return nil, err
	}
	if err := t.addUsage(batch); err != nil {
		return nil, err
	}
	t.tenants = t.tenants.put(string(cmd.Tenant), &rec)
	return rec.booked(), nil
}

func (t *tenant) booked() BookResult {
	return BookResult{AppliedSeq: t.AppliedSeq, TreeSize: t.TreeSize, TreeRoot: slices.Clone(t.TreeRoot)}
}

// extend moves the ledger's position and tree to the end of the batch.
func (t *tenant) extend(batch *receipt.Batch) error {
	var f receipt.Frontier
	if err := f.UnmarshalBinary(t.Frontier); err != nil {
		return fmt.Errorf("tree of tenant %s: %w", batch.Tenant, err) // our own bytes: the node must stop
	}
	if !batch.Extends(&f) {
		return badBatch(fmt.Errorf("tree of %d receipts with another root", batch.TreeSize))
	}
	frontier, err := f.MarshalBinary()
	if err != nil {
		return fmt.Errorf("tree of tenant %s: %w", batch.Tenant, err)
	}
	t.AppliedSeq, t.TreeSize, t.Frontier = batch.To, batch.TreeSize, frontier
	if batch.TreeSize > 0 {
		t.TreeRoot = slices.Clone(batch.Root[:])
	}
	return nil
}

// addUsage adds the receipts to their rows, touching each row of the tree once.
func (t *tx) addUsage(batch *receipt.Batch) error {
	var fresh tree[*UsageRow] // rows of this batch, not yet published
	var uses tree[*keyUse]    // likewise
	for i := range batch.Receipts {
		r := &batch.Receipts[i]
		known, err := t.checkHome(r)
		if err != nil {
			return badBatch(err)
		}
		row := rowOf(r)
		if !known {
			row.Project, row.Env, row.Account, row.Key = "", "", "", ""
		} else if _, ok := t.keys.get(row.Key); ok {
			uses = t.noteUse(uses, r)
		}
		key := row.key()
		if sum, ok := fresh.get(key); ok {
			sum.add(r)
			continue
		}
		if old, ok := t.usage.get(key); ok {
			*row = *old
		}
		row.add(r)
		fresh = fresh.put(key, row)
	}
	fresh.scan("", func(key string, row *UsageRow) bool {
		t.usage = t.usage.put(key, row)
		return true
	})
	uses.scan("", func(key string, u *keyUse) bool {
		t.uses = t.uses.put(key, u)
		return true
	})
	return nil
}

// checkHome keeps rows to keys that exist and to where they belong, so that a
// worker can neither write onto another's bill nor make names up. A key that the
// state does not know at all was made after the backup that was restored: what it
// used is the tenant's, in a row without a key. To refuse it would stop the tenant
// for ever. People with a token have no key; they use what the tenant's objects
// name.
func (t *tx) checkHome(r *receipt.Receipt) (known bool, err error) {
	if r.Key == "" {
		if r.Project != "" || r.Env != "" || r.Account != "" {
			return false, fmt.Errorf("record %d: a project without a key", r.Seq)
		}
		return true, nil
	}
	if strings.HasPrefix(string(r.Key), personPrefix) {
		_, err := t.account(&command.Key{Tenant: r.Tenant, Project: r.Project, Env: r.Env, Account: r.Account})
		return err == nil && printable(string(r.Key), maxIDLen), nil
	}
	k, ok := t.keys.get(string(r.Key))
	switch {
	case !ok:
		return false, nil
	case k.Tenant != r.Tenant:
		return false, fmt.Errorf("record %d: key %s is not of the tenant", r.Seq, r.Key)
	case r.Project != k.Project || r.Env != k.Env || r.Account != k.Account:
		return false, fmt.Errorf("record %d: key %s belongs elsewhere", r.Seq, r.Key)
	}
	return true, nil
}

func badBatch(err error) error {
	return bulkhead.E(bulkhead.InvalidRequest, "receipts_invalid", "The receipts do not verify.").With(err)
}
