package state

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/audit"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"github.com/bulkhead-ai/bulkhead/worker/receipt"
)

// access reads the sections about the audit trail, the keys' use, grants and
// erasures.
func (r *sectionReader) access(v *View) error {
	for _, read := range [...]func(*View) error{
		r.logs, r.trail, r.anchors, r.uses, r.wraps, r.grants, r.erasures, r.holds,
	} {
		if err := read(v); err != nil {
			return err
		}
	}
	return nil
}

// records reads a section of JSON records; key checks one and answers its key.
func records[V any](r *sectionReader, id byte, key func(x *V) (string, error)) (tree[*V], error) {
	var b builder[*V]
	err := r.section(id, func(rec []byte) error {
		x := new(V)
		if err := json.Unmarshal(rec, x); err != nil {
			return err
		}
		k, err := key(x)
		if err != nil {
			return err
		}
		return b.add(k, x)
	})
	return b.tree(), err
}

func (r *sectionReader) logs(v *View) (err error) {
	v.logs, err = records(r, sectionLogs, func(l *audit.Log) (string, error) {
		if !validLog(l.Name) || l.Size == 0 || l.At < 0 || l.At > v.clock || len(l.Head) != 32 {
			return "", fmt.Errorf("log %q out of range", l.Name)
		}
		var f receipt.Frontier
		if err := f.UnmarshalBinary(l.Frontier); err != nil || f.Size() != l.Size {
			return "", fmt.Errorf("tree of log %q", l.Name)
		}
		return l.Name, nil
	})
	return err
}

func (r *sectionReader) trail(v *View) error {
	var b builder[*AuditLine]
	var last *AuditLine
	err := r.section(sectionTrail, func(rec []byte) error {
		l, err := parseLine(rec)
		if err != nil {
			return err
		}
		if last != nil && l.N != last.N+1 {
			return fmt.Errorf("line %d after line %d of the audit trail", l.N, last.N)
		}
		if log, ok := v.logs.get(l.Log); !ok || l.Seq > log.Size || l.Seq > l.N {
			return fmt.Errorf("line %d of the audit trail is of no log", l.N)
		}
		last = l
		v.trail.count = l.N
		v.trail.bytes += len(l.Line)
		return b.add(indexKey(l.N), l)
	})
	v.trail.lines = b.tree()
	return err
}

func (r *sectionReader) anchors(v *View) (err error) {
	v.anchors, err = records(r, sectionAnchors, func(a *command.Anchor) (string, error) {
		if log, ok := v.logs.get(a.Log); !ok || a.Size > log.Size {
			return "", fmt.Errorf("checkpoint %d of log %q is of the future", a.Size, a.Log)
		}
		return a.Log, checkAnchor(a)
	})
	return err
}

func (r *sectionReader) uses(v *View) (err error) {
	v.uses, err = records(r, sectionUses, func(u *keyUse) (string, error) {
		if _, ok := v.keys.get(string(u.Key)); !ok || u.Last < 0 || u.Requests < 0 {
			return "", fmt.Errorf("use of key %q out of range", u.Key)
		}
		return string(u.Key), nil
	})
	return err
}

func (r *sectionReader) wraps(v *View) (err error) {
	v.wraps, err = records(r, sectionWraps, func(w *command.CreateWrap) (string, error) { return w.ID, checkWrap(w) })
	return err
}

func (r *sectionReader) grants(v *View) (err error) {
	v.grants, err = records(r, sectionGrants, func(g *command.AccessGrant) (string, error) {
		return grantKey(g.Tenant, g.ID), checkGrant(g)
	})
	return err
}

func (r *sectionReader) erasures(v *View) (err error) {
	v.erasures, err = records(r, sectionErasures, func(e *erasure) (string, error) {
		if !bulkhead.ValidName(string(e.Tenant)) || e.Index > v.index || !isStep(e.Step) {
			return "", fmt.Errorf("erasure of tenant %q out of range", e.Tenant)
		}
		return erasureKey(e.Tenant, e.Index), checkPlan(&e.Erasure)
	})
	return err
}

func (r *sectionReader) holds(v *View) (err error) {
	v.holds, err = records(r, sectionHolds, func(h *hold) (string, error) { return string(h.Tenant), checkHold(h) })
	return err
}

// checkAccess makes sure of what the commands rest on: the trail ends with the
// last record, and a tenant is being erased exactly where a plan says so.
func (v *View) checkAccess() error {
	var records uint64
	v.logs.scan("", func(_ string, l *audit.Log) bool { records += l.Size; return true })
	if records != v.trail.count {
		return fmt.Errorf("%w: %d records in the audit trail, the last one is line %d", ErrSnapshot, records, v.trail.count)
	}
	var err error
	v.tenants.scan("", func(id string, rec *tenant) bool {
		if err = v.checkErasing(bulkhead.TenantID(id), rec); err != nil {
			err = fmt.Errorf("%w: tenant %q: %w", ErrSnapshot, id, err)
		}
		return err == nil
	})
	v.erasures.scan("", func(_ string, e *erasure) bool {
		if _, ok := v.tenants.get(string(e.Tenant)); err == nil && !ok {
			err = fmt.Errorf("%w: an erasure of tenant %q, which never was", ErrSnapshot, e.Tenant)
		}
		return err == nil
	})
	v.holds.scan("", func(id string, _ *hold) bool {
		if rec, ok := v.tenants.get(id); err == nil && (!ok || rec.Deleted) {
			err = fmt.Errorf("%w: a hold on tenant %q, which does not exist", ErrSnapshot, id)
		}
		return err == nil
	})
	return err
}

func (v *View) checkErasing(id bulkhead.TenantID, rec *tenant) error {
	plan, ok := v.running(id)
	gone := ok && !before(plan.Step, command.StepSnapshots)
	switch {
	case rec.Erasing != (ok && !gone), gone && !rec.Deleted:
		return errors.New("its erasure and its record differ")
	case rec.Deleted && len(rec.DataKey)+len(rec.ShareID) > 0:
		return errors.New("it is gone, and its data key is not")
	}
	return nil
}
