package state

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/audit"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
)

const (
	trailLen   = 4096     // lines that the state keeps
	trailBytes = 16 << 20 // of lines
	maxNote    = 2 << 10  // bytes of a signed checkpoint
)

// AuditLine is a record of the audit trail as it was written.
type AuditLine struct {
	N    uint64 // its place among the records of all logs: 1, 2, ...
	Log  string
	Seq  uint64 // its place in its log
	Line []byte // audit.Record without a newline
}

// trail keeps the last lines of all logs, from which each node feeds its own
// store. What a node lacks beyond them it has from another node's store.
type trail struct {
	lines tree[*AuditLine] // by big-endian N; never emptied
	bytes int
	count uint64 // N of the last line
}

func (r trail) add(l *AuditLine) trail {
	r.count = l.N
	r.lines = r.lines.put(indexKey(l.N), l)
	r.bytes += len(l.Line)
	for r.lines.len() > trailLen || r.bytes > trailBytes && r.lines.len() > 1 {
		oldest := r.lines.first()
		old, _ := r.lines.get(oldest)
		r.lines = r.lines.del(oldest)
		r.bytes -= len(old.Line)
	}
	return r
}

// appendAudit writes records. It is the same work on every node, so a record
// that is committed is the same everywhere.
func (t *tx) appendAudit(cmd *command.AppendAudit) error {
	if n := len(cmd.Entries); n == 0 || n > command.MaxAuditEntries {
		return invalid("entries", "A command carries 1 to 256 events.")
	}
	for i := range cmd.Entries {
		e := &cmd.Entries[i]
		if err := checkEntry(e); err != nil {
			return err
		}
		log := audit.Log{Name: e.Log}
		if old, ok := t.logs.get(e.Log); ok {
			log = *old
		}
		next, line, err := log.Append(t.now, e.Event)
		if err != nil {
			return fmt.Errorf("append to the audit trail: %w", err) // our own bytes: the node must stop
		}
		t.logs = t.logs.put(e.Log, &next)
		t.trail = t.trail.add(&AuditLine{N: t.trail.count + 1, Log: e.Log, Seq: next.Size, Line: line})
	}
	return nil
}

// checkEntry bounds an event so that its record is no longer than a line may
// be.
func checkEntry(e *command.AuditEntry) error {
	if !validLog(e.Log) {
		return invalid("log", "A log of the audit trail is platform, or tenant/ and a name.")
	}
	v := &e.Event
	for _, s := range [...]string{
		v.Op, v.Action, string(v.Tenant), v.Object, v.Reason, v.Code, v.Request, v.Node,
		v.Actor.Subject, v.Actor.Name, v.Actor.Method, v.Actor.Issuer, v.Actor.Role, v.Actor.Address,
	} {
		if len(s) > audit.MaxText {
			return invalid("event", "A text of an event has at most 512 bytes.")
		}
	}
	for _, raw := range [...]json.RawMessage{v.Before, v.After} {
		if !validDetail(raw) {
			return invalid("event", "What an event shows is JSON of at most 32768 bytes.")
		}
	}
	switch {
	case v.Op == "" || v.Action == "" || v.Actor.Method == "" || v.Node == "":
		return invalid("event", "An event names its action, its actor's method and its node.")
	case v.Phase != audit.Intent && v.Phase != audit.Outcome && v.Phase != audit.Single:
		return invalid("phase", "The phase of an event is intent, outcome or single.")
	case !validResult(v.Result):
		return invalid("result", "The result of an event is pending, done, denied, failed or unknown.")
	case v.Status < 0 || v.Status > 999 || v.Count < 0:
		return invalid("event", "Status or count of the event is out of range.")
	}
	return nil
}

// validDetail looks at the form in which a line shows it: there, characters that
// a browser might read as markup take six bytes.
func validDetail(raw json.RawMessage) bool {
	if len(raw) == 0 {
		return true
	}
	shown, err := json.Marshal(raw)
	return err == nil && len(shown) <= audit.MaxDetail && utf8.Valid(shown)
}

func validLog(name string) bool {
	tenant, ok := strings.CutPrefix(name, audit.TenantLog(""))
	return name == audit.Platform || ok && bulkhead.ValidName(tenant)
}

func validResult(r audit.Result) bool {
	switch r {
	case audit.Pending, audit.Done, audit.Denied, audit.Failed, audit.Unknown:
		return true
	}
	return false
}

// anchorAudit keeps checkpoints. The state cannot know whether they are
// authentic; it knows that a log never was longer than it is.
func (t *tx) anchorAudit(cmd *command.AnchorAudit) error {
	if n := len(cmd.Anchors); n == 0 || n > command.MaxAuditEntries {
		return invalid("anchors", "A command carries 1 to 256 checkpoints.")
	}
	for i := range cmd.Anchors {
		a := cmd.Anchors[i]
		if err := checkAnchor(&a); err != nil {
			return err
		}
		log, ok := t.logs.get(a.Log)
		if !ok || a.Size > log.Size {
			continue
		}
		if kept, ok := t.anchors.get(a.Log); !ok || a.Size > kept.Size {
			t.anchors = t.anchors.put(a.Log, &a)
		}
	}
	return nil
}

func checkAnchor(a *command.Anchor) error {
	switch {
	case !validLog(a.Log):
		return invalid("log", "A log of the audit trail is platform, or tenant/ and a name.")
	case a.Size == 0:
		return invalid("size", "A checkpoint is of a log that is not empty.")
	case len(a.Note) == 0 || len(a.Note) > maxNote:
		return invalid("note", "A signed checkpoint has 1 to 2048 bytes.")
	}
	return nil
}

// AuditLog answers how far a log goes; false: nothing was written to it.
func (v *View) AuditLog(name string) (audit.Log, bool) {
	l, ok := v.logs.get(name)
	if !ok {
		return audit.Log{Name: name}, false
	}
	return *l, true
}

// AuditLogs lists the logs that are not empty, sorted by name.
func (v *View) AuditLogs() []audit.Log {
	out := make([]audit.Log, 0, v.logs.len())
	v.logs.scan("", func(_ string, l *audit.Log) bool {
		out = append(out, *l)
		return true
	})
	return out
}

// Anchor answers the newest signed checkpoint of a log.
func (v *View) Anchor(log string) (command.Anchor, bool) {
	a, ok := v.anchors.get(log)
	if !ok {
		return command.Anchor{}, false
	}
	return *a, true
}

// AuditCount is the N of the last line of the audit trail; 0: there is none.
func (v *View) AuditCount() uint64 { return v.trail.count }

// AuditSince calls fn for each line that the state still keeps of those after
// the n-th, in order, until fn answers false. It answers whether these are all:
// false when some are forgotten (the state keeps the last 4096, within 16 MiB),
// or when there never was an n-th, because the state was put back to an older
// one.
func (v *View) AuditSince(n uint64, fn func(AuditLine) bool) (whole bool) {
	if n > v.trail.count {
		return false
	}
	first := v.trail.count + 1
	if oldest := v.trail.lines.first(); oldest != "" {
		first = binary.BigEndian.Uint64([]byte(oldest))
	}
	v.trail.lines.scan(indexKey(n+1), func(_ string, l *AuditLine) bool { return fn(*l) })
	return n+1 >= first
}
