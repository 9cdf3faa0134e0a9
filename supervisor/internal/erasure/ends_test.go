package erasure

import (
	"bytes"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/bulkhead-ai/bulkhead/cluster/audit"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
)

func (s *sim) begin(edit ...func(*command.BeginErasure)) {
	s.t.Helper()
	cmd := &command.BeginErasure{ID: "era_1", Tenant: tenantName, Reason: "the team leaves", By: "admin@bank.example"}
	for _, e := range edit {
		e(cmd)
	}
	s.must(cmd)
}

func (s *sim) rounds(n int) {
	for range n {
		s.round()
	}
}

// TestMissingNodeIsNamedUntilItIsRemoved: what a dead node has on its disk is not
// destroyed, and nobody says that it is.
func TestMissingNodeIsNamedUntilItIsRemoved(t *testing.T) {
	s := newSim(t, 3)
	s.nodes[2].down = true
	s.begin()
	s.rounds(20)
	if p := s.plan(); p.Step != command.StepShred || p.Waiting != "not confirmed by n3" {
		t.Fatalf("with n3 down: %+v", p)
	}
	s.must(&command.RemoveNode{ID: "n3"})
	s.finish(20)
	c, err := VerifyCertificate(s.plan().Certificate, s.vkey)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range c.Nodes {
		if w.Node == "n3" {
			t.Errorf("the certificate speaks for a removed node: %+v", w)
		}
	}
	if !strings.Contains(strings.Join(c.NotCovered, " "), "removed before they confirmed") {
		t.Errorf("the certificate is silent about removed nodes: %q", c.NotCovered)
	}
}

// TestOwnerThatDiesHandsOver: the drain waits for whoever owns the tenant now.
func TestOwnerThatDiesHandsOver(t *testing.T) {
	s := newSim(t, 3)
	s.begin()
	s.nodes[0].down, s.leader = true, 1
	s.rounds(5)
	if p := s.plan(); p.Step != command.StepDrain || p.Waiting != "node n1 has not ended the worker and booked its receipts" {
		t.Fatalf("with the owner down: %+v", p)
	}
	s.must(&command.Assign{Moves: []command.Move{{Tenant: tenantName, From: "n1", To: "n2"}}})
	s.rounds(5)
	if p := s.plan(); p.Step != command.StepDrain {
		t.Fatalf("drained by a node that has not taken over: %+v", p)
	}
	s.must(&command.BeginEpoch{Tenant: tenantName, Node: "n2", PublicKey: make([]byte, 32)})
	s.rounds(5)
	if p := s.plan(); p.Step != command.StepShred {
		t.Fatalf("after n2 took over: %+v", p)
	}
	s.nodes[0].down, s.nodes[0].unbooked = false, false // n2 has booked its journal
	s.finish(20)
}

// TestBackupBringsBackNothing restores a snapshot from before the erasure: the
// tenant is erased again, and the trail says why.
func TestBackupBringsBackNothing(t *testing.T) {
	for _, recipient := range []string{"", ageKey} {
		s := newSim(t, 3)
		var before bytes.Buffer
		if recipient != "" { // a backup taken while the plan waited for an archive
			s.begin(func(b *command.BeginErasure) { b.Recipient = recipient })
			s.rounds(3)
			if s.plan().Step != command.StepExport {
				t.Fatalf("at %q", s.plan().Step)
			}
		}
		if _, err := s.st.View().WriteTo(&before); err != nil {
			t.Fatal(err)
		}
		if recipient == "" {
			s.begin()
		}
		s.finish(30)
		if err := s.st.Restore(&before); err != nil {
			t.Fatal(err)
		}
		s.certificates, s.forgotAt = map[string]bool{}, 0
		s.nodes[1].files = true // what a copy of a disk brought
		s.nodes[0].image = true // with a journal that no worker can open any more
		for range 30 {
			if p := s.plan(); p.Step == command.StepDone {
				break
			}
			s.round()
		}
		p := s.plan()
		s.keys = p.KeysRevoked
		s.checkDone(&p)
		again := s.recorded(p.ID + " single " + ActionRestored)
		switch {
		case recipient != "" && !p.ExportLost:
			t.Errorf("waits for an archive that nobody can make: %+v", p)
		case recipient == "" && p.Reason != restoredReason:
			t.Errorf("erased again for %q", p.Reason)
		}
		if recipient == "" && !again && !strings.Contains(strings.Join(s.events, "\n"), "single "+ActionRestored) {
			t.Errorf("the trail does not say that a tenant came back:\n%s", strings.Join(s.events, "\n"))
		}
		if log, _ := s.st.View().AuditLog(audit.Platform); recipient == "" && log.Size == 0 {
			t.Error("the platform's log does not say that a tenant came back")
		}
	}
}

// TestNodeThatJoinsLater gets the tombstone: no backup brings the share to it.
func TestNodeThatJoinsLater(t *testing.T) {
	s := newSim(t, 3)
	s.begin()
	s.finish(30)
	s.join("n4")
	n := s.addNode("n4")
	n.files, n.share = false, false
	s.rounds(2)
	if !n.tombs[string(shareID())] {
		t.Error("a node that joined after the erasure has no tombstone")
	}
	again := n.ops
	s.rounds(2)
	if n.ops != again {
		t.Errorf("it is done again and again: %v", s.trace[again:])
	}
}

// TestTenantThatNeverServed has no share, no worker and nothing to drain.
func TestTenantThatNeverServed(t *testing.T) {
	plain := emptySim(t, 1)
	plain.nodes[0].share = false
	plain.must(&command.Apply{Upsert: team()})
	plain.begin()
	for range 10 {
		plain.round()
	}
	p := plain.plan()
	if p.Step != command.StepDone {
		t.Fatalf("at %+v", p)
	}
	c, err := VerifyCertificate(p.Certificate, plain.vkey)
	if err != nil || c.Share != "" || len(c.Nodes) != 2 {
		t.Errorf("certificate: %+v, %v", c.Nodes, err)
	}
}

func TestTrailDownStopsDestruction(t *testing.T) {
	s := newSim(t, 1)
	s.begin()
	for at := 1; at < 200; at++ { // every record fails, whatever its number is
		s.before[at] = func() {
			if strings.Contains(s.trace[len(s.trace)-1], "record") {
				s.faults[s.ops] = failed
			}
		}
	}
	s.rounds(10)
	if p := s.plan(); p.Step != command.StepRetain || !s.nodes[0].share {
		t.Fatalf("without a trail: step %s, share %v", p.Step, s.nodes[0].share)
	}
	s.before = map[int]func(){}
	s.finish(20)
}

func TestCancelledPlanIsForgotten(t *testing.T) {
	s := newSim(t, 1)
	s.begin(func(b *command.BeginErasure) { b.NotBefore = s.now.UnixMilli() + 1e9 })
	s.rounds(5)
	p := s.plan()
	if p.Step != command.StepRetain || !strings.HasPrefix(p.Waiting, "retention until 2023-11-") {
		t.Fatalf("%+v", p)
	}
	s.must(&command.CancelErasure{Tenant: tenantName, ID: p.ID})
	s.rounds(5)
	if n := s.nodes[0]; !n.share || !n.files || n.ended {
		t.Error("destroyed after the plan was given up")
	}
	s.begin(func(b *command.BeginErasure) { b.ID = "era_2" })
	s.keys = 0 // they were revoked by the first
	s.finish(20)
}

func TestClip(t *testing.T) {
	for _, n := range []int{1, audit.MaxText, audit.MaxText + 1, 2 * audit.MaxText} {
		if got := clip(strings.Repeat("é", n)); len(got) > audit.MaxText || !utf8.ValidString(got) || !strings.HasPrefix(strings.Repeat("é", n), got) {
			t.Errorf("clip of %d: %d bytes", n, len(got))
		}
	}
}
