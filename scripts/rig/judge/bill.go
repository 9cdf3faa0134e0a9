package judge

import "fmt"

// Answer is what a client saw of a request that it got an id for.
type Answer struct {
	Tenant   string
	Request  string
	Status   int
	Complete bool // received whole, to the last byte
}

// Sums are a tenant's totals, of the ledger or of a log.
type Sums struct{ Requests, Served, Input, Output int64 }

// Sum adds up a log.
func Sum(log map[string][]Record) (s Sums) {
	for _, rs := range log {
		for _, r := range rs {
			s.Requests, s.Input, s.Output = s.Requests+1, s.Input+r.Input, s.Output+r.Output
			if r.Outcome == "served" {
				s.Served++
			}
		}
	}
	return s
}

// Terms are what a tenant was promised.
type Terms struct {
	// Durable: no call without a replicated record of it: a dedicated tenant, or
	// one with a limit. Otherwise a node that is lost may take with it the record of
	// a call whose answer nobody holds whole.
	Durable bool
	Tokens  int64 // limit over the whole campaign; 0 = none
}

// Bill holds one tenant's answers, upstream calls and log against each other.
func Bill(tenant string, t Terms, answers []Answer, calls []Call, log map[string][]Record) (problems []error) {
	say := func(format string, args ...any) {
		problems = append(problems, fmt.Errorf(tenant+": "+format, args...))
	}
	held := map[string]bool{}
	for _, a := range answers {
		if a.Status != 200 {
			continue
		}
		n := len(log[a.Request])
		switch {
		case n > 1:
			say("%s: on the bill %d times", a.Request, n)
		case a.Complete && n == 0:
			say("%s: the client holds the whole answer, the bill knows nothing of it", a.Request)
		case a.Complete && log[a.Request][0].Outcome != "served":
			say("%s: the client holds the whole answer, the bill says %s %s", a.Request, log[a.Request][0].Outcome, log[a.Request][0].Code)
		case !a.Complete && n == 0 && t.Durable:
			say("%s: an answer began, the bill knows nothing of it", a.Request)
		}
		held[a.Request] = held[a.Request] || a.Complete
	}
	charged := map[string]bool{}
	var tokens int64
	for _, c := range calls {
		id := fmt.Sprintf("%s-%d", c.Request, c.Attempt)
		if !c.Charged {
			continue
		}
		if charged[id] {
			say("%s: sent upstream twice", id)
		}
		charged[id] = true
		tokens += c.Tokens
		rs := log[c.Request]
		switch {
		case len(rs) == 1 && rs[0].Attempt != c.Attempt:
			say("%s: the upstream charged it, the bill has attempt %d", id, rs[0].Attempt)
		case len(rs) == 0 && (t.Durable || held[c.Request]):
			say("%s: the upstream charged it, the bill knows nothing of it", id)
		}
	}
	for request, rs := range log {
		if len(rs) > 1 {
			say("%s: %d records", request, len(rs))
		}
		for _, r := range rs {
			if r.Outcome == "served" && !charged[fmt.Sprintf("%s-%d", request, r.Attempt)] {
				say("%s-%d: billed as served, the upstream never saw it", request, r.Attempt)
			}
		}
	}
	if t.Tokens > 0 && tokens > t.Tokens {
		say("the upstream charged %d tokens, the limit is %d", tokens, t.Tokens)
	}
	return problems
}
