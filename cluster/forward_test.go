package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"reflect"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"github.com/hashicorp/raft"
)

func TestCommandAboveTheLevelIsRefused(t *testing.T) {
	n := openNode(t, Config{Dir: t.TempDir()})
	n.levels = func(c command.Type) uint32 {
		if c == command.TypeCreateKey {
			return 2
		}
		return 1
	}
	propose(t, n, acme())
	propose(t, n, key("k1", 1)) // alone: its own build is all there is
	propose(t, n, initCluster("c-one"))
	_, err := n.Propose(testContext(t), key("k2", 2))
	wantRefusal(t, err, "level_too_low")
	raw, err := command.Encode(key("k2", 2), "x", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	f, err := n.HandleForward(testContext(t), raw)
	if err != nil || f.Refusal == nil || f.Refusal.Code != "level_too_low" {
		t.Errorf("forwarded: %+v, %v", f, err)
	}
	for typ := range command.Type(18) {
		if l := requiredLevel(typ); l != 1 {
			t.Errorf("command %d needs level %d", typ, l)
		}
	}
}

// A newer build forwards what this one does not know: it must not get into the
// log, where it would stop this node.
func TestUnknownCommandDoesNotEnterTheLog(t *testing.T) {
	n := openNode(t, Config{Dir: t.TempDir()})
	raw, err := command.Encode(acme(), "x", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for _, typ := range []byte{99, 99 | byte(command.Ignorable)} {
		raw[0] = typ
		f, err := n.HandleForward(testContext(t), raw)
		if err != nil || f.Refusal == nil || f.Refusal.Code != "level_too_low" {
			t.Errorf("type %d: %+v, %v", typ, f, err)
		}
	}
	_, err = n.HandleForward(testContext(t), []byte("nonsense"))
	wantRefusal(t, err, "invalid_command")
	propose(t, n, acme())
}

// What crosses the network is what the local caller would have got.
func TestForwardedResultsAreTheSame(t *testing.T) {
	n, twin := openNode(t, Config{Dir: t.TempDir()}), openNode(t, Config{Dir: t.TempDir()})
	for i, cmd := range []command.Command{
		acme(), key("k1", 1), &command.RevokeKey{ID: "k1"}, &command.RevokeKey{ID: "none"},
		&command.SetSuspended{Tenant: "acme"}, &command.SetDataKey{Tenant: "acme", Wrapped: []byte("w"), ShareID: make([]byte, 32)},
		beginEpoch(), initCluster("c-one"),
	} {
		raw, err := command.Encode(cmd, "x"+string(rune('a'+i)), time.UnixMilli(1))
		if err != nil {
			t.Fatal(err)
		}
		want := twin.order(testContext(t), cmd.Type(), raw)
		f, err := n.HandleForward(testContext(t), raw)
		if err != nil {
			t.Fatal(err)
		}
		wire, err := json.Marshal(f)
		if err != nil {
			t.Fatal(err)
		}
		var back Forwarded
		if err := json.Unmarshal(wire, &back); err != nil {
			t.Fatal(err)
		}
		got := back.outcome(cmd.Type())
		if got.fate != want.fate || !reflect.DeepEqual(got.result, want.result) || got.index == 0 {
			t.Errorf("%T: %+v, want %+v", cmd, got, want)
		}
		if want.err != nil && (got.err == nil || got.err.Error() != want.err.Error()) {
			t.Errorf("%T: error %v, want %v", cmd, got.err, want.err)
		}
	}
}

func TestOutcomesOfSending(t *testing.T) {
	unreachable := bulkhead.E(bulkhead.Unavailable, "node_unreachable", "no")
	for _, c := range []struct {
		what   string
		answer Forwarded
		err    error
		want   outcome
	}{
		{"not sent", Forwarded{}, unreachable, outcome{fate: not}},
		{"no answer", Forwarded{}, errors.New("reset"), outcome{fate: unknown, inFlight: true}},
		{"another leader", Forwarded{NotApplied: "not the leader"}, nil, outcome{fate: not}},
		{"lost leadership", Forwarded{Unknown: "leadership lost"}, nil, outcome{fate: unknown}},
		{"refused", Forwarded{Index: 3, Refusal: refusalOf(unreachable)}, nil, outcome{fate: refused, index: 3}},
		{"nonsense", Forwarded{Index: 3, Result: []byte("{")}, nil, outcome{fate: unknown}},
		{"applied", Forwarded{Index: 3, Result: []byte("7")}, nil, outcome{fate: applied, index: 3, result: bulkhead.Epoch(7)}},
	} {
		n := &Node{cfg: Config{Forward: func(context.Context, string, []byte) (Forwarded, error) { return c.answer, c.err }}}
		got := n.send(t.Context(), "n2", &proposal{typ: command.TypeBeginEpoch})
		got.err = nil
		if !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %+v, want %+v", c.what, got, c.want)
		}
	}
}

// A refusal is no answer while an earlier attempt may still be applied.
func TestRefusalBehindALostAttemptIsUnknown(t *testing.T) {
	n := openNode(t, Config{Dir: t.TempDir()})
	refusal := bulkhead.E(bulkhead.Conflict, "some_conflict", "no")
	for _, inFlight := range []bool{false, true} {
		_, err := n.conclude(testContext(t), &proposal{id: "x", inFlight: inFlight}, outcome{fate: refused, err: refusal})
		if errors.Is(err, ErrUnknownOutcome) != inFlight {
			t.Errorf("in flight %v: %v", inFlight, err)
		}
		wantRefusal(t, err, "some_conflict")
	}
}

func TestStableMembersKeepUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		end := uint64(5000)
		c := newContacts(func() uint64 { return end }, time.Second)
		n := &Node{cfg: Config{StableFor: 10 * time.Second}, heard: c}
		hear := func(seconds int, last uint64) {
			for range seconds * 10 {
				c.from("n2", last)
				time.Sleep(100 * time.Millisecond)
			}
		}
		stable := func(want bool, when string) {
			t.Helper()
			p, alive := c.of("n2")
			if got := alive && time.Since(p.stable) >= n.cfg.StableFor; got != want {
				t.Errorf("%s: stable %v, want %v", when, got, want)
			}
		}
		if _, alive := c.of("n2"); alive {
			t.Error("alive before it was heard")
		}
		hear(20, 10)
		stable(false, "far behind")
		hear(9, 4500)
		stable(false, "keeping up for 9 s")
		hear(2, 4500)
		stable(true, "keeping up for 11 s")
		time.Sleep(1500 * time.Millisecond)
		if _, alive := c.of("n2"); alive {
			t.Error("alive after a long silence")
		}
		hear(9, 5000)
		stable(false, "after a gap")
		hear(2, 5000)
		stable(true, "a while after the gap")
	})
}

func TestVoteIsNotGrantedAfterTheStop(t *testing.T) {
	store := &memLog{InmemStore: raft.NewInmemStore()}
	g := &stallGuard{logStore: store, limit: time.Minute, trip: func(error) {}}
	votes := guardedStable{store.InmemStore, g}
	if err := errors.Join(votes.SetUint64([]byte("t"), 1), votes.Set([]byte("v"), []byte("n1"))); err != nil {
		t.Fatal(err)
	}
	broken := errors.New("input/output error")
	g.before = func() error { return broken }
	if err := votes.Set([]byte("v"), []byte("n2")); !errors.Is(err, broken) {
		t.Errorf("a vote that failed: %v", err)
	}
	g.before = nil
	if err := votes.SetUint64([]byte("t"), 2); err != nil { // raft would panic
		t.Errorf("a term after the stop: %v", err)
	}
	if err := votes.Set([]byte("v"), []byte("n2")); !errors.Is(err, errStopped) {
		t.Errorf("a vote after the stop: %v", err)
	}
	if v, _ := votes.Get([]byte("v")); string(v) != "n1" {
		t.Errorf("voted for %s", v)
	}
}
