package judge

import (
	"fmt"
	"slices"
	"strings"
)

// Call is a request that reached the upstream.
type Call struct {
	Tenant   string
	Request  string // request id
	Attempt  int
	Node     string // who sent it, by its address
	At       int64  // arrival
	Charged  bool   // the upstream answered it with 200
	Tokens   int64  // charged
	Complete bool   // the whole answer was written
}

// Record is a request in a tenant's log.
type Record struct {
	Request string
	Attempt int
	Epoch   uint64 // that settled it
	Outcome string
	Code    string
	Input   int64
	Output  int64
}

// served tells whether the epoch that made the call also settled it: what another
// one resolved says unknown outcome.
func (r *Record) served() bool { return r.Code != unknownOutcome }

// unknownOutcome is the code of a record that a later epoch wrote for a call
// whose end nobody saw.
const unknownOutcome = "outcome_unknown"

// Slack is how much later than its successor's first call the call of an old
// epoch may arrive, in microseconds: it was sent before, and is late on the wire
// or in a queue.
const Slack = 250_000

// Fencing checks the calls of one tenant against its log: one epoch is one node's,
// no call of an epoch arrives after the first one of a later epoch, and a call
// without a record is nobody's but the owner's.
func Fencing(calls []Call, log map[string][]Record) (problems []error) {
	calls = slices.Clone(calls)
	slices.SortStableFunc(calls, func(a, b Call) int { return int(a.At - b.At) })
	firsts := map[uint64]Call{} // first own call of an epoch
	lasts := map[uint64]int64{} // arrival of its last
	for _, c := range calls {
		r := own(c, log)
		if r == nil {
			continue
		}
		lasts[r.Epoch] = c.At
		first, ok := firsts[r.Epoch]
		if !ok {
			firsts[r.Epoch] = c
		} else if first.Node != c.Node {
			problems = append(problems, fmt.Errorf("%s: epoch %d called the upstream from %s and from %s (%s)", c.Tenant, r.Epoch, first.Node, c.Node, c.Request))
		}
	}
	epochs := make([]uint64, 0, len(firsts))
	for e := range firsts {
		epochs = append(epochs, e)
	}
	slices.Sort(epochs)
	for _, c := range calls {
		if p := late(c, log, epochs, firsts, lasts); p != nil {
			problems = append(problems, p)
		}
	}
	return problems
}

// own is the record that the calling epoch itself wrote, nil if there is none.
func own(c Call, log map[string][]Record) *Record {
	for i, r := range log[c.Request] {
		if r.Attempt == c.Attempt && r.served() {
			return &log[c.Request][i]
		}
	}
	return nil
}

// late says what is wrong with when a call came.
func late(c Call, log map[string][]Record, epochs []uint64, firsts map[uint64]Call, lasts map[uint64]int64) error {
	if r := own(c, log); r != nil {
		if e, f, ok := after(r.Epoch, epochs, firsts); ok && c.At > f.At+Slack {
			return fmt.Errorf("%s: %s-%d of epoch %d reached the upstream %d ms after the first call of epoch %d", c.Tenant, c.Request, c.Attempt, r.Epoch, (c.At-f.At)/1000, e)
		}
		return nil
	}
	// Resolved by a later epoch, or lost with a node: its own epoch was before.
	for _, r := range log[c.Request] {
		if f, ok := firsts[r.Epoch]; ok && r.Attempt == c.Attempt && c.At > f.At+Slack && f.Node != c.Node {
			return fmt.Errorf("%s: %s-%d, resolved by epoch %d, reached the upstream %d ms after that epoch's first call", c.Tenant, c.Request, c.Attempt, r.Epoch, (c.At-f.At)/1000)
		}
	}
	return intruder(c, epochs, firsts, lasts)
}

// after is the first epoch later than e whose first call is known.
func after(e uint64, epochs []uint64, firsts map[uint64]Call) (uint64, Call, bool) {
	for _, next := range epochs {
		if next > e {
			return next, firsts[next], true
		}
	}
	return 0, Call{}, false
}

// intruder judges a call that no epoch owns: the node must have had the tenant
// then, in the epoch before it, in the one after it, or in one between the two
// that left no other trace.
func intruder(c Call, epochs []uint64, firsts map[uint64]Call, lasts map[uint64]int64) error {
	var before, next uint64
	for _, e := range epochs {
		if firsts[e].At+Slack < c.At {
			before = e
		} else if next == 0 {
			next = e
		}
	}
	switch {
	case before == 0 || firsts[before].Node == c.Node:
		return nil
	case lasts[before] > c.At:
		// The epoch before still called after it.
	case next != 0 && (firsts[next].Node == c.Node || next > before+1):
		return nil
	case next == 0:
		return nil // a last epoch without a trace cannot be told from an intruder; the campaign ends with served requests
	}
	return fmt.Errorf("%s: %s-%d reached the upstream from %s while %s had the tenant (epochs %d and %d), and no epoch knows of it",
		c.Tenant, c.Request, c.Attempt, c.Node, firsts[before].Node, before, next)
}

// SplitClientID takes the id that the upstream sees into request and attempt.
func SplitClientID(id string) (request string, attempt int, ok bool) {
	i := strings.LastIndexByte(id, '-')
	if i < 0 {
		return "", 0, false
	}
	_, err := fmt.Sscanf(id[i+1:], "%d", &attempt)
	return id[:i], attempt, err == nil
}
