package state

import "bytes"

// KeepTrail puts the audit trail of a present state in place of the one of this
// state, which is about to be restored: what was done stays on record, whatever
// else goes back. It is called before anybody reads the state. Where the present
// trail does not go on from the one that was saved, as on a node that begins
// anew, the saved one stays.
func (s *State) KeepTrail(present *View) {
	v := *s.view.Load()
	if present.trail.count == 0 || !present.continues(&v) {
		return
	}
	v.trail, v.logs, v.anchors = present.trail, present.logs, present.anchors
	v.clock = max(v.clock, present.clock) // no record is of a later time
	s.view.Store(&v)
}

// continues reports whether every log that the saved state has is here, and no
// shorter. Of two logs of one length the last records must be the same.
func (v *View) continues(saved *View) bool {
	for _, was := range saved.AuditLogs() {
		is, ok := v.AuditLog(was.Name)
		if !ok || is.Size < was.Size || is.Size == was.Size && !bytes.Equal(is.Head, was.Head) {
			return false
		}
	}
	return true
}
