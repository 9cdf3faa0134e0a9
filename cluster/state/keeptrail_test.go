package state

import (
	"testing"

	"github.com/bulkhead-ai/bulkhead/cluster/audit"
)

// TestTrailGoesOnOverARestore: a backup brings back an old state, but not an old
// trail; one that has nothing in common with the present trail keeps its own.
func TestTrailGoesOnOverARestore(t *testing.T) {
	m := newMachine(t)
	m.must(appendAudit(audit.Platform, audit.Platform))
	old := restored(t, m.st)
	m.must(appendAudit(audit.Platform))
	old.KeepTrail(m.st.View())
	if log, _ := old.AuditLog(audit.Platform); log.Size != 3 || old.AuditCount() != 3 {
		t.Errorf("after the restore the trail has %d records, %d in all", log.Size, old.AuditCount())
	}
	if again := restored(t, old); again.AuditCount() != 3 {
		t.Errorf("after another snapshot it has %d records", again.AuditCount())
	}
	shorter, another := newMachine(t), newMachine(t)
	shorter.must(appendAudit(audit.Platform))
	another.must(appendAudit(audit.Platform))
	another.must(appendAudit(audit.Platform)) // two first events, not a first and a second
	for name, present := range map[string]*machine{"shorter": shorter, "another": another} {
		m := newMachine(t)
		m.must(appendAudit(audit.Platform, audit.Platform))
		want, _ := m.st.AuditLog(audit.Platform)
		m.st.KeepTrail(present.st.View())
		if log, _ := m.st.AuditLog(audit.Platform); log.Size != 2 || string(log.Head) != string(want.Head) {
			t.Errorf("%s trail: %d records took the place of the saved two", name, log.Size)
		}
	}
}
