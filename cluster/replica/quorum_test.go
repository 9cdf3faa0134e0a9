package replica

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/bulkhead-ai/bulkhead/cluster/command"
)

func replicas(nodes string) (all []command.Replica) {
	for _, c := range nodes {
		all = append(all, command.Replica{Node: string(c), Receiver: "r" + string(c)})
	}
	return all
}

func TestHeld(t *testing.T) {
	acked := map[string]uint64{"b": 7, "c": 5, "d": 3, "e": 9}
	for _, c := range []struct {
		voters string
		want   uint64
	}{
		{"a", 10}, {"ab", 7}, {"abc", 7}, {"abcde", 7}, {"bc", 5}, {"bcd", 5}, {"", 0}, {"acd", 5}, {"abcd", 5}, {"x", 0}, {"axy", 0},
	} {
		got := held(replicas(c.voters), replicas("a")[0], 10, func(r command.Replica) uint64 { return acked[r.Node] })
		if got != c.want {
			t.Errorf("a quorum of %q holds %d, want %d", c.voters, got, c.want)
		}
	}
}

func TestWith(t *testing.T) {
	for _, c := range []struct{ voters, learner, want string }{
		{"ab", "c", "abc"}, {"abc", "b", "abc"},
	} {
		if got := with(replicas(c.voters), replicas(c.learner)[0]); !sameSet(got, replicas(c.want)) {
			t.Errorf("%s with %s: %v", c.voters, c.learner, got)
		}
	}
	wiped := command.Replica{Node: "b", Receiver: "new"}
	got := with(replicas("abc"), wiped)
	if len(got) != 3 || got[1] != wiped {
		t.Errorf("a wiped disk takes its node's place: %v", got)
	}
}

func TestBetter(t *testing.T) {
	long, late := Position{Epoch: 2, Point: Point{Seq: 90}}, Position{Epoch: 3, Point: Point{Seq: 10}}
	if better(long, late) || !better(late, long) {
		t.Error("the later epoch wins over the longer copy")
	}
	if longer := (Position{Epoch: 2, Point: Point{Seq: 91}}); !better(longer, long) || better(long, long) {
		t.Error("in one epoch the longer copy wins")
	}
}

func TestBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBucket(Budget{Rate: 1000, Burst: 4000})
		began := time.Now()
		for range 14 {
			if err := b.take(t.Context(), 1000); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(began); took < 9900*time.Millisecond || took > 10100*time.Millisecond {
			t.Errorf("14000 bytes at 1000 a second after a burst of 4000 took %v", took)
		}
		time.Sleep(time.Hour)
		began = time.Now()
		if err := b.take(t.Context(), 5000); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took < 900*time.Millisecond {
			t.Errorf("an hour of rest saves no more than the burst, but 5000 took %v", took)
		}
	})
}
