package state

import (
	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
)

// Erasure answers the newest erasure of a tenant's name, a finished one too.
func (v *View) Erasure(tenant bulkhead.TenantID) (command.Erasure, bool) {
	e, ok := v.lastErasure(tenant)
	if !ok {
		return command.Erasure{}, false
	}
	return e.Erasure, true
}

// Erasures lists all erasures, finished ones too, sorted by tenant and begin.
func (v *View) Erasures() []command.Erasure {
	out := make([]command.Erasure, 0, v.erasures.len())
	v.erasures.scan("", func(_ string, e *erasure) bool {
		out = append(out, e.Erasure)
		return true
	})
	return out
}

// Held reports whether a tenant is under legal hold, and why.
func (v *View) Held(tenant bulkhead.TenantID) (reason string, held bool) {
	h, ok := v.holds.get(string(tenant))
	if !ok {
		return "", false
	}
	return h.Reason, true
}

func (v *View) lastErasure(tenant bulkhead.TenantID) (last *erasure, ok bool) {
	v.erasures.prefix(string(tenant)+"\x00", func(_ string, e *erasure) bool {
		last = e
		return true
	})
	return last, last != nil
}

// running answers the erasure of a tenant that is not finished.
func (v *View) running(tenant bulkhead.TenantID) (*erasure, bool) {
	e, ok := v.lastErasure(tenant)
	return e, ok && e.Step != command.StepDone
}

func (t *tx) putErasure(e *erasure) {
	t.erasures = t.erasures.put(erasureKey(e.Tenant, e.Index), e)
}

// erasureKey orders erasures by tenant and begin. No name holds a NUL.
func erasureKey(tenant bulkhead.TenantID, index uint64) string {
	return string(tenant) + "\x00" + indexKey(index)
}
