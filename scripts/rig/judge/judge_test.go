package judge

import (
	"errors"
	"strings"
	"testing"
	"time"
)

// expect compares problems with a text that one of them must hold; "" wants none.
func expect(t *testing.T, problems []error, want string) {
	t.Helper()
	got := errors.Join(problems...)
	if want == "" && got != nil {
		t.Errorf("problems where there are none: %v", got)
	}
	if want != "" && (got == nil || !strings.Contains(got.Error(), want)) {
		t.Errorf("problems %v, want %q", got, want)
	}
}

func TestFencing(t *testing.T) {
	const ms = 1000
	call := func(request, node string, at int64) Call {
		return Call{Tenant: "t", Request: request, Attempt: 1, Node: node, At: at, Charged: true}
	}
	rec := func(request string, epoch uint64) (string, []Record) {
		return request, []Record{{Request: request, Attempt: 1, Epoch: epoch, Outcome: "served"}}
	}
	log := map[string][]Record{}
	for request, epoch := range map[string]uint64{"a1": 1, "a2": 1, "b1": 2, "b2": 2, "c1": 3} {
		k, v := rec(request, epoch)
		log[k] = v
	}
	log["open"] = []Record{{Request: "open", Attempt: 1, Epoch: 2, Outcome: "failed", Code: unknownOutcome}}
	moved := []Call{call("a1", "A", 0), call("a2", "A", 100*ms), call("open", "A", 200*ms), call("b1", "B", 4000*ms), call("b2", "B", 5000*ms), call("c1", "A", 9000*ms)}
	for _, c := range []struct {
		name  string
		extra []Call
		want  string
	}{
		{"a move and back", nil, ""},
		{"late on the wire", []Call{call("lost", "A", 4100*ms)}, ""},
		{"the sleeper wakes", []Call{call("ghost", "A", 4600*ms)}, "reached the upstream from A while B had the tenant"},
		{"a lost intent of the owner", []Call{call("lost", "B", 4500*ms)}, ""},
		{"of the epoch that follows", []Call{call("lost", "A", 8500*ms)}, ""},
		{"a third node", []Call{call("ghost", "C", 6000*ms)}, "from C"},
	} {
		t.Run(c.name, func(t *testing.T) {
			expect(t, Fencing(append(moved, c.extra...), log), c.want)
		})
	}
	k, v := rec("old", 1)
	log[k] = v
	expect(t, Fencing(append(moved, call("old", "A", 4600*ms)), log), "600 ms after the first call of epoch 2")
	delete(log, "old")
	k, v = rec("two", 2)
	log[k] = v
	expect(t, Fencing(append(moved, call("two", "C", 4600*ms)), log), "epoch 2 called the upstream from B and from C")
	delete(log, "two")
	log["late"] = []Record{{Request: "late", Attempt: 1, Epoch: 2, Outcome: "failed", Code: unknownOutcome}}
	expect(t, Fencing(append(moved, call("late", "A", 4900*ms)), log), "resolved by epoch 2")
}

func TestBill(t *testing.T) {
	answers := []Answer{{"t", "whole", 200, true}, {"t", "cut", 200, false}, {"t", "refused", 429, true}}
	calls := []Call{{Request: "whole", Attempt: 1, Charged: true, Tokens: 10}, {Request: "cut", Attempt: 2, Charged: true, Tokens: 5}, {Request: "bad", Attempt: 1}}
	for _, c := range []struct {
		name   string
		terms  Terms
		change func(a *[]Answer, c *[]Call, log map[string][]Record)
		want   string
	}{
		{"agree", Terms{Durable: true, Tokens: 15}, nil, ""},
		{"lost", Terms{}, func(_ *[]Answer, _ *[]Call, log map[string][]Record) { delete(log, "whole") }, "whole: the client holds the whole answer, the bill knows nothing"},
		{"twice", Terms{}, func(_ *[]Answer, _ *[]Call, log map[string][]Record) {
			log["whole"] = append(log["whole"], log["whole"][0])
		}, "on the bill 2 times"},
		{"unasked twice", Terms{}, func(_ *[]Answer, _ *[]Call, log map[string][]Record) {
			log["x"] = []Record{{Outcome: "failed"}, {Outcome: "failed"}}
		}, "x: 2 records"},
		{"not served", Terms{}, func(_ *[]Answer, _ *[]Call, log map[string][]Record) { log["whole"][0].Outcome = "failed" }, "the bill says failed"},
		{"cut and forgotten, standard", Terms{}, func(_ *[]Answer, _ *[]Call, log map[string][]Record) { delete(log, "cut") }, ""},
		{"cut and forgotten, durable", Terms{Durable: true}, func(_ *[]Answer, _ *[]Call, log map[string][]Record) { delete(log, "cut") }, "cut: an answer began"},
		{"charged and forgotten, durable", Terms{Durable: true}, func(a *[]Answer, _ *[]Call, log map[string][]Record) { *a = (*a)[:1]; delete(log, "cut") }, "cut-2: the upstream charged it"},
		{"sent twice", Terms{}, func(_ *[]Answer, c *[]Call, _ map[string][]Record) { *c = append(*c, (*c)[0]) }, "sent upstream twice"},
		{"another attempt", Terms{}, func(_ *[]Answer, _ *[]Call, log map[string][]Record) { log["cut"][0].Attempt = 1 }, "the bill has attempt 1"},
		{"invented", Terms{}, func(_ *[]Answer, _ *[]Call, log map[string][]Record) {
			log["x"] = []Record{{Attempt: 1, Outcome: "served"}}
		}, "x-1: billed as served"},
		{"over the limit", Terms{Tokens: 14}, nil, "charged 15 tokens, the limit is 14"},
	} {
		t.Run(c.name, func(t *testing.T) {
			log := map[string][]Record{"whole": {{Attempt: 1, Outcome: "served", Input: 10}}, "cut": {{Attempt: 2, Outcome: "failed", Code: unknownOutcome}}}
			a, u := append([]Answer{}, answers...), append([]Call{}, calls...)
			if c.change != nil {
				c.change(&a, &u, log)
			}
			expect(t, Bill("t", c.terms, a, u, log), c.want)
		})
	}
	if s := Sum(map[string][]Record{"a": {{Outcome: "served", Input: 3, Output: 4}}, "b": {{Outcome: "failed", Input: 1}}}); s != (Sums{2, 1, 4, 4}) {
		t.Errorf("sum %+v", s)
	}
}

func TestKeys(t *testing.T) {
	op := func(act Act, ok bool, begin, end int64) Op {
		return Op{Key: "k", Act: act, OK: ok, Begin: begin, End: end}
	}
	for _, c := range []struct {
		name string
		ops  []Op
		want string
	}{
		{"a life", []Op{op(Create, true, 1, 2), op(Use, true, 3, 4), op(Revoke, true, 5, 6), op(Use, false, 7, 8)}, ""},
		{"used while revoked", []Op{op(Create, true, 1, 2), op(Revoke, true, 3, 8), op(Use, true, 4, 6), op(Use, false, 5, 7)}, ""},
		{"refused, then let in, while revoked", []Op{op(Create, true, 1, 2), op(Revoke, true, 3, 9), op(Use, false, 4, 5), op(Use, true, 6, 7)}, ""},
		{"refused before it is revoked", []Op{op(Create, true, 1, 2), op(Use, false, 3, 4), op(Revoke, true, 5, 6)}, "fit no order"},
		{"let in after one of two revocations", []Op{op(Create, true, 1, 2), op(Revoke, false, 3, 0), op(Revoke, true, 4, 5), op(Use, true, 6, 7)}, "fit no order"},
		{"revoked but let in", []Op{op(Create, true, 1, 2), op(Revoke, true, 3, 4), op(Use, true, 5, 6)}, "fit no order"},
		{"created but not known", []Op{op(Create, true, 1, 2), op(Use, false, 3, 4)}, "fit no order"},
		{"revocation of unknown outcome", []Op{op(Create, true, 1, 2), op(Revoke, false, 3, 0), op(Use, true, 5, 6), op(Use, false, 7, 8)}, ""},
		{"which some nodes know of", []Op{op(Create, true, 1, 2), op(Revoke, false, 3, 0), op(Use, false, 5, 6), op(Use, true, 7, 8)}, ""},
		{"before it is created", []Op{op(Use, true, 1, 2), op(Create, true, 3, 4)}, "fit no order"},
	} {
		t.Run(c.name, func(t *testing.T) { expect(t, Keys(c.ops, time.Minute), c.want) })
	}
}

func TestSplitClientID(t *testing.T) {
	if r, a, ok := SplitClientID("req_a-b-12"); r != "req_a-b" || a != 12 || !ok {
		t.Error(r, a, ok)
	}
	if _, _, ok := SplitClientID("x"); ok {
		t.Error("took an id without an attempt")
	}
}
