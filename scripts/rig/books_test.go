package main

import (
	"os"
	"strings"
	"testing"
)

// TestBooksThatDisagree: each way in which the books can disagree is a problem,
// and books that agree are none: a check that cannot fail proves nothing.
func TestBooksThatDisagree(t *testing.T) {
	t.Parallel()
	const (
		clients  = `{"request_id":"req_a","status":200,"complete":true}` + "\n" + `{"request_id":"req_b","status":200,"complete":false}` + "\n" + `{"request_id":"req_c","status":429}`
		upstream = `{"client_request_id":"req_a-1","status":200,"label":"capped","input":10,"output":5}` + "\n" + `{"client_request_id":"req_b-1","status":200,"label":"capped","input":10,"output":5}`
	)
	lines := func() map[string][]logLine {
		return map[string][]logLine{
			"req_a": {{Request: "req_a", Attempt: 1, Outcome: "served"}},
			"req_b": {{Request: "req_b", Attempt: 1, Outcome: "failed", Code: "outcome_unknown"}},
		}
	}
	for _, c := range []struct {
		name              string
		clients, upstream string
		change            func(map[string][]logLine)
		want              string // of a problem; "" = none
	}{
		{"agree", clients, upstream, nil, ""},
		{"lost", clients, upstream, func(m map[string][]logLine) { delete(m, "req_a") }, "0 times"},
		{"doubled", clients, upstream, func(m map[string][]logLine) { m["req_a"] = append(m["req_a"], m["req_a"][0]) }, "2 times"},
		{"held but not served", clients, upstream, func(m map[string][]logLine) { m["req_a"][0].Outcome = "failed" }, "the books say failed"},
		{"begun and forgotten", clients, upstream, func(m map[string][]logLine) { delete(m, "req_b") }, "req_b"},
		{"sent twice", clients, upstream + "\n" + upstream, nil, "sent upstream twice"},
		{"charged but not booked", clients, upstream + "\n" + `{"client_request_id":"req_x-1","status":200}`, nil, "req_x-1: the upstream has it"},
		{"another attempt", clients, upstream, func(m map[string][]logLine) { m["req_b"][0].Attempt = 2 }, "req_b-1"},
		{"served of nothing", clients, upstream, func(m map[string][]logLine) {
			m["req_y"] = []logLine{{Request: "req_y", Attempt: 1, Outcome: "served"}}
		}, "no record"},
		{"over the limit", clients, upstream + "\n" + `{"client_request_id":"","status":200}` + "\n" + `{"client_request_id":"req_b-2","status":200,"label":"capped","input":400000,"output":1}`, nil, "the limit is"},
		{"nothing happened", "", upstream, nil, "proves nothing"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			x := &chaos{b: &bench{dir: t.TempDir()}}
			for path, text := range map[string]string{x.clientBook(): c.clients, x.upstreamBook(): c.upstream} {
				if err := os.WriteFile(path, []byte(text+"\n"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			b := books{lines: lines()}
			if c.change != nil {
				c.change(b.lines)
			}
			problems := append(x.checkClients(b), x.checkUpstream(b)...)
			if c.want == "" && len(problems) > 0 {
				t.Errorf("problems where there are none: %v", problems)
			}
			found := false
			for _, p := range problems {
				found = found || strings.Contains(p.Error(), c.want)
			}
			if c.want != "" && !found {
				t.Errorf("no problem says %q: %v", c.want, problems)
			}
		})
	}
}

// TestJudge: one more than fits and one fewer are both wrong.
func TestJudge(t *testing.T) {
	t.Parallel()
	tokens := storm{fits: 40, one: 402}
	good := exact{ok: 40, refused: 960, reached: 40, complete: 40, admitted: 40, served: 40, used: 40 * 402}
	cancelled := storm{fits: 40, one: 402, cancel: true}
	for _, c := range []struct {
		name   string
		storm  storm
		change func(*exact)
		ok     bool
	}{
		{"exact", tokens, func(*exact) {}, true},
		{"one more", tokens, func(x *exact) {
			x.ok, x.reached, x.complete, x.admitted, x.served, x.used = 41, 41, 41, 41, 41, 41*402
		}, false},
		{"one fewer", tokens, func(x *exact) {
			x.ok, x.refused, x.reached, x.complete, x.admitted, x.served, x.used = 39, 961, 39, 39, 39, 39, 39*402
		}, false},
		{"neither served nor refused", tokens, func(x *exact) { x.other = 1 }, false},
		{"past the limits unseen", tokens, func(x *exact) { x.admitted = 39 }, false},
		{"held but not booked", tokens, func(x *exact) { x.served = 39 }, false},
		{"one of unknown charge", cancelled, func(x *exact) { x.ok, x.served, x.used, x.kept = 39, 39, 39*402, 1 }, true},
		{"one given away", cancelled, func(x *exact) { x.served, x.ok, x.used = 39, 39, 39*402 }, false},
		{"requests: exact", storm{fits: 100, one: 1}, func(x *exact) { x.reached, x.admitted = 100, 100 }, true},
		{"requests: one more", storm{fits: 100, one: 1}, func(x *exact) { x.reached, x.admitted = 101, 101 }, false},
		{"requests: one fewer", storm{fits: 100, one: 1}, func(x *exact) { x.reached, x.admitted = 99, 99 }, false},
	} {
		x := good
		c.change(&x)
		if err := c.storm.judge(x, 1000); (err == nil) != c.ok {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}
