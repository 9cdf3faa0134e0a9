package state

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/audit"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
)

func auditEvent(op string) audit.Event {
	return audit.Event{
		Op: op, Phase: audit.Single, Action: "create-key", Result: audit.Done, Node: "n1",
		Actor: audit.Actor{Subject: "token", Method: "token"},
	}
}

func appendAudit(logs ...string) *command.AppendAudit {
	cmd := new(command.AppendAudit)
	for i, log := range logs {
		cmd.Entries = append(cmd.Entries, command.AuditEntry{Log: log, Event: auditEvent(fmt.Sprint("op-", i))})
	}
	return cmd
}

// since collects the lines after the n-th.
func since(st *State, n uint64) (lines []AuditLine, whole bool) {
	whole = st.AuditSince(n, func(l AuditLine) bool { lines = append(lines, l); return true })
	return lines, whole
}

func TestAuditTrailIsKeptAndVerifies(t *testing.T) {
	m := newMachine(t)
	if lines, whole := since(m.st, 0); !whole || lines != nil || m.st.AuditCount() != 0 {
		t.Errorf("an empty trail: %d lines, whole %v", len(lines), whole)
	}
	acme := audit.TenantLog("acme") // which never was
	m.must(appendAudit(audit.Platform, acme, audit.Platform))
	m.must(appendAudit(acme))
	m.st = restored(t, m.st)
	m.must(appendAudit(acme, audit.Platform))
	lines, whole := since(m.st, 0)
	if !whole || len(lines) != 6 || m.st.AuditCount() != 6 {
		t.Fatalf("%d lines, whole %v, count %d", len(lines), whole, m.st.AuditCount())
	}
	verifiers := map[string]*audit.Verifier{}
	for _, l := range m.st.AuditLogs() {
		root, err := l.Root()
		if err != nil || l.Size != 3 {
			t.Fatalf("%+v, %v", l, err)
		}
		v := audit.NewVerifier(audit.Log{Name: l.Name})
		if err := v.Expect(l.Size, root); err != nil {
			t.Fatal(err)
		}
		verifiers[l.Name] = v
	}
	for i, l := range lines {
		if l.N != uint64(i+1) {
			t.Errorf("line %d is the %d-th", i+1, l.N)
		}
		if err := verifiers[l.Log].Add(l.Line); err != nil {
			t.Error(err)
		}
		if r, err := audit.ReadRecord(l.Line); err != nil || r.Seq != l.Seq || r.Log != l.Log || r.At > m.now.UnixMilli() || r.At == 0 {
			t.Errorf("%+v, %v", r, err)
		}
	}
	for _, v := range verifiers {
		if err := v.Finish(); err != nil {
			t.Error(err)
		}
	}
	if lines, whole = since(m.st, 4); !whole || len(lines) != 2 || lines[0].N != 5 {
		t.Errorf("after the 4th: %d, %v", len(lines), whole)
	}
	if lines, whole = since(m.st, 7); whole || lines != nil {
		t.Errorf("after one that never was: %d, %v", len(lines), whole)
	}
	if l, ok := m.st.AuditLog("tenant/nobody"); ok || l.Name != "tenant/nobody" || l.Size != 0 {
		t.Errorf("a log without records: %+v, %v", l, ok)
	}
}

func TestAuditTimeNeverGoesBack(t *testing.T) {
	m := newMachine(t)
	m.must(appendAudit(audit.Platform))
	m.now = m.now.Add(-1e15)
	m.must(appendAudit(audit.Platform))
	lines, _ := since(m.st, 0)
	first, _ := audit.ReadRecord(lines[0].Line)
	second, _ := audit.ReadRecord(lines[1].Line)
	if second.At < first.At || first.At == 0 {
		t.Errorf("%d, then %d", first.At, second.At)
	}
}

func TestAuditRefusesWhatIsNoEvent(t *testing.T) {
	m := newMachine(t)
	m.must(appendAudit(audit.Platform))
	long := strings.Repeat("x", audit.MaxText+1)
	for name, edit := range map[string]func(*command.AuditEntry){
		"no such log":      func(e *command.AuditEntry) { e.Log = "plat" },
		"log without name": func(e *command.AuditEntry) { e.Log = "tenant/" },
		"log of no tenant": func(e *command.AuditEntry) { e.Log = "tenant/A b" },
		"long reason":      func(e *command.AuditEntry) { e.Event.Reason = long },
		"long address":     func(e *command.AuditEntry) { e.Event.Actor.Address = long },
		"no action":        func(e *command.AuditEntry) { e.Event.Action = "" },
		"phase":            func(e *command.AuditEntry) { e.Event.Phase = "later" },
		"result":           func(e *command.AuditEntry) { e.Event.Result = "" },
		"status":           func(e *command.AuditEntry) { e.Event.Status = 1000 },
		"count":            func(e *command.AuditEntry) { e.Event.Count = -1 },
		"much shown":       func(e *command.AuditEntry) { e.Event.After = quoted(audit.MaxDetail) },
		"bad UTF-8 shown":  func(e *command.AuditEntry) { e.Event.Before = json.RawMessage("\"\xff\"") },
	} {
		cmd := appendAudit(audit.Platform, audit.Platform)
		edit(&cmd.Entries[1])
		t.Run(name, func(t *testing.T) { m.refused("invalid_command", cmd) })
	}
	m.refused("invalid_command", &command.AppendAudit{})
	m.refused("invalid_command", appendAudit(slices.Repeat([]string{audit.Platform}, command.MaxAuditEntries+1)...))
	if m.st.AuditCount() != 1 {
		t.Errorf("%d records", m.st.AuditCount())
	}
	cmd := appendAudit(audit.Platform) // the most that an event can be
	e := &cmd.Entries[0].Event
	full := strings.Repeat("\u2028", audit.MaxText/3) // six bytes each in a line
	e.Op, e.Action, e.Object, e.Reason, e.Code, e.Request, e.Node = full, full, full, full, full, full, full
	e.Actor = audit.Actor{Subject: full, Name: full, Method: full, Issuer: full, Role: full, Address: full}
	e.Before, e.After = quoted(audit.MaxDetail-2), quoted(audit.MaxDetail-2)
	m.must(cmd)
}

// quoted is a JSON text of n letters.
func quoted(n int) json.RawMessage { return json.RawMessage(`"` + strings.Repeat("x", n) + `"`) }

func TestAuditTailIsBounded(t *testing.T) {
	m := newMachine(t)
	m.must(appendAudit(audit.Platform))
	v := *m.st.View()
	put := func(n int, line string) {
		for range n {
			v.trail = v.trail.add(&AuditLine{N: v.trail.count + 1, Log: audit.Platform, Seq: v.trail.count + 1, Line: []byte(line)})
		}
	}
	put(trailLen+99, "x")
	m.st.view.Store(&v)
	lines, whole := since(m.st, 0)
	if whole || len(lines) != trailLen || lines[0].N != 101 {
		t.Errorf("%d lines from %d, whole %v", len(lines), lines[0].N, whole)
	}
	if _, whole := since(m.st, 100); !whole {
		t.Error("none of what was asked for is forgotten")
	}
	if _, whole := since(m.st, 99); whole {
		t.Error("one of what was asked for is forgotten")
	}
	put(200, strings.Repeat("x", audit.MaxLine))
	bytes := 0
	v.AuditSince(0, func(l AuditLine) bool { bytes += len(l.Line); return true })
	if bytes > trailBytes || bytes != v.trail.bytes || bytes < trailBytes/2 {
		t.Errorf("%d bytes are kept, %d are counted", bytes, v.trail.bytes)
	}
}

func TestAnchors(t *testing.T) {
	m := newMachine(t)
	acme := audit.TenantLog("acme")
	m.must(appendAudit(acme, acme, acme))
	anchor := func(size uint64, note string) *command.AnchorAudit {
		return &command.AnchorAudit{Anchors: []command.Anchor{{Log: acme, Size: size, Note: []byte(note)}}}
	}
	for _, step := range []struct {
		size uint64
		note string
		want string
	}{{4, "future", ""}, {2, "two", "two"}, {1, "one", "two"}, {2, "again", "two"}, {3, "three", "three"}} {
		m.must(anchor(step.size, step.note))
		if a, ok := m.st.Anchor(acme); string(a.Note) != step.want || ok != (step.want != "") {
			t.Errorf("after %s: %+v", step.note, a)
		}
	}
	m.must(&command.AnchorAudit{Anchors: []command.Anchor{{Log: audit.Platform, Size: 1, Note: []byte("x")}}})
	if _, ok := m.st.Anchor(audit.Platform); ok {
		t.Error("a checkpoint of a log without records")
	}
	m.refused("invalid_command", anchor(0, "none"))
	m.refused("invalid_command", anchor(3, ""))
	m.refused("invalid_command", anchor(3, strings.Repeat("x", maxNote+1)))
	m.refused("invalid_command", &command.AnchorAudit{})
	if a, ok := restored(t, m.st).Anchor(acme); !ok || a.Size != 3 {
		t.Errorf("restored: %+v, %v", a, ok)
	}
}

// Audit records are not what readers of desired state follow.
func TestAuditIsNotInTheFeed(t *testing.T) {
	m := newMachine(t)
	m.must(team("acme"))
	at := m.index
	m.must(appendAudit(audit.TenantLog("acme")))
	if !m.st.View().Changes(at, func(_ []bulkhead.KeyID, _ []bulkhead.TenantID, _ bool) { t.Error("a change") }) {
		t.Error("the feed does not know")
	}
}
