package erasure

import (
	"fmt"
	"testing"

	"github.com/bulkhead-ai/bulkhead/cluster/command"
)

// story is a way to run a plan from its begin to its end.
type story struct {
	name  string
	nodes int
	begin []func(*command.BeginErasure)
	leads func(s *sim) func(n *simNode) bool // nil = one leader, another after it died
}

const ageKey = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"

func stories() []story {
	export := func(b *command.BeginErasure) { b.Recipient = ageKey }
	retain := func(b *command.BeginErasure) { b.NotBefore = 1_700_000_000_000 + 5*60_000 }
	return []story{
		{name: "alone", nodes: 1},
		{name: "three nodes", nodes: 3, begin: []func(*command.BeginErasure){export, retain}},
		{name: "leader changes every round", nodes: 3, leads: func(s *sim) func(*simNode) bool {
			return func(n *simNode) bool { return s.nodes[int(s.now.Unix()/60)%len(s.nodes)] == n }
		}},
		{name: "everybody believes to lead", nodes: 3, begin: []func(*command.BeginErasure){export}, leads: func(*sim) func(*simNode) bool {
			return func(*simNode) bool { return true }
		}},
	}
}

func (st *story) start(t testing.TB) *sim {
	s := newSim(t, st.nodes)
	if st.leads != nil {
		s.leads = st.leads(s)
	}
	s.begin(st.begin...)
	return s
}

// TestEveryFaultAtEveryPoint stops, fails or leaves in doubt each operation of
// each story, once per kind of fault.
func TestEveryFaultAtEveryPoint(t *testing.T) {
	for _, st := range stories() {
		t.Run(st.name, func(t *testing.T) {
			calm := st.start(t)
			calm.finish(30)
			if calm.ops < 14 {
				t.Fatalf("a plan of %d operations: the faults below would miss most of it", calm.ops)
			}
			runs := 0
			for at := 1; at <= calm.ops; at++ {
				for kind := crashBefore; kind < faultKinds; kind++ {
					runs++
					s := st.start(t)
					s.faults[at] = kind
					s.finish(60)
					if t.Failed() {
						t.Fatalf("fault %d at operation %d (%s)", kind, at, s.trace[at-1])
					}
				}
			}
			t.Logf("%d operations, %d runs", calm.ops, runs)
		})
	}
}

// TestTwoCrashes puts a second crash at every point after the first.
func TestTwoCrashes(t *testing.T) {
	for _, st := range stories()[:2] {
		t.Run(st.name, func(t *testing.T) {
			calm := st.start(t)
			calm.finish(30)
			for first := 1; first <= calm.ops; first++ {
				for second := first + 1; second <= calm.ops+3; second++ {
					s := st.start(t)
					s.faults[first], s.faults[second] = crashAfter, crashAfter
					if (first+second)%2 == 0 {
						s.faults[first], s.faults[second] = delayed, crashBefore
					}
					s.finish(60)
					if t.Failed() {
						t.Fatalf("crashes at operations %d and %d", first, second)
					}
				}
			}
		})
	}
}

// TestHoldAtEveryPoint lets a legal hold come before each operation. Either it is
// too late and refused, or nothing is destroyed until it is released.
func TestHoldAtEveryPoint(t *testing.T) {
	for _, st := range stories() {
		t.Run(st.name, func(t *testing.T) {
			calm := st.start(t)
			calm.finish(30)
			var held, late int
			for at := 1; at <= calm.ops; at++ {
				s := st.start(t)
				var accepted bool
				s.before[at] = func() {
					_, err := s.apply(&command.SetHold{Tenant: tenantName, Hold: true, Reason: "case 7", By: "legal"})
					accepted = err == nil
				}
				for range 10 {
					s.round()
					if p := s.plan(); p.Step == command.StepExport && p.Recipient != "" {
						s.apply(&command.AdvanceErasure{Tenant: tenantName, ID: p.ID, Step: p.Step, ExportSHA256: make([]byte, 32)})
					}
				}
				if !accepted {
					late++
				} else {
					held++
					if p := s.plan(); p.Step != command.StepRetain || p.Waiting != "legal hold: case 7" {
						t.Fatalf("hold before operation %d (%s): %+v", at, s.trace[at-1], p)
					}
					for _, n := range s.nodes {
						if !n.share || !n.files || n.ended {
							t.Fatalf("hold before operation %d: %s destroyed something", at, n.id)
						}
					}
					s.must(&command.SetHold{Tenant: tenantName, Reason: "closed", By: "legal"})
				}
				s.finish(60)
			}
			if held == 0 || late == 0 {
				t.Errorf("%d holds in time, %d too late: want some of each", held, late)
			}
		})
	}
}

func ExampleNewID() {
	fmt.Println(NewID()[:4])
	// Output: era_
}
