package replica

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/worker/sealed"
)

// spoilOldest flips a bit in the oldest segment of a node that runs: nobody
// reads it again by itself.
func (r *rig) spoilOldest(node int) {
	names := r.nodes[node].segments(r.t)
	if len(names) < 2 {
		r.t.Fatal("the copy has one segment: there is nothing that nobody reads")
	}
	change(r.t, names[0], func(b []byte) { b[sealed.SectorSize+30] ^= 4 })
}

func spoilable(t *testing.T) (*rig, *rigOwner) {
	r := newRig(t, 3)
	o, err := r.own(0, OwnerConfig{})
	must(t, err)
	for i := range 200 {
		must(t, o.write(1, i*13%2500))
	}
	must(t, o.catchUp("n1"))
	must(t, o.catchUp("n2"))
	return r, o
}

// TestScrubbedCopyIsRepairedInUse: no restart is needed between the finding and
// the repair.
func TestScrubbedCopyIsRepairedInUse(t *testing.T) {
	r, o := spoilable(t)
	n := r.nodes[2]
	r.spoilOldest(2)
	if err := n.k.Scrub(t.Context(), tenant); !errors.Is(err, ErrDamaged) {
		t.Fatalf("scrub of a damaged copy: %v", err)
	}
	must(t, o.write(1, 100))
	must(t, o.catchUp("n2"))
	r.sameFiles(0, 2)
	if err := n.k.Scrub(t.Context(), tenant); err != nil {
		t.Errorf("scrub of the repaired copy: %v", err)
	}
}

// TestOwnerOfADamagedCopyYields, so that the next take-over copies from the
// others; but not while too few of them are whole, since then nobody could.
func TestOwnerOfADamagedCopyYields(t *testing.T) {
	r, o := spoilable(t)
	r.nodes[2].stop()
	r.spoilOldest(0)
	if err := r.nodes[0].k.Scrub(t.Context(), tenant); !errors.Is(err, ErrDamaged) {
		t.Fatalf("scrub of the owner's copy: %v", err)
	}
	for range 20 {
		must(t, o.write(1, 100))
	}
	r.nodes[2].start()
	select {
	case <-o.done:
	case <-time.After(time.Minute):
		t.Fatal("the owner goes on though the other copies are whole")
	}
	if !errors.Is(o.err, ErrDamaged) {
		t.Errorf("Own ended with %v", o.err)
	}
	o, err := r.own(0, OwnerConfig{})
	must(t, err)
	must(t, o.catchUp("n1"))
	r.sameFiles(0, 1)
	if err := r.nodes[0].k.Scrub(t.Context(), tenant); err != nil {
		t.Errorf("scrub of the repaired copy: %v", err)
	}
}

// TestOwnerThatMeetsDamageYields: a peer that lacks the damaged segment is how
// the owner learns of it.
func TestOwnerThatMeetsDamageYields(t *testing.T) {
	r := newRig(t, 4)
	voters := r.voters()[:3]
	updates := make(chan Replicas, 1)
	o, err := r.own(0, OwnerConfig{Voters: voters, Updates: updates})
	must(t, err)
	for i := range 200 {
		must(t, o.write(1, i*13%2500))
	}
	must(t, o.catchUp("n1"))
	must(t, o.catchUp("n2"))
	r.spoilOldest(0)
	updates <- Replicas{Voters: voters, Learners: r.voters()[3:]}
	select {
	case <-o.done:
	case <-time.After(time.Minute):
		t.Fatal("the owner goes on with a copy that it cannot give to a learner")
	}
	if !errors.Is(o.err, ErrDamaged) {
		t.Errorf("Own ended with %v", o.err)
	}
}

func TestPatrolGoesRound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		none := t.TempDir() + "/none"
		k := &Keeper{fs: Disk(), cfg: KeeperConfig{Dir: func(bulkhead.TenantID) string { return none }}, books: map[bulkhead.TenantID]*book{}}
		rounds := 0
		ctx, stop := context.WithTimeout(t.Context(), 150*time.Minute)
		defer stop()
		k.Patrol(ctx, time.Hour, func() []bulkhead.TenantID { rounds++; return []bulkhead.TenantID{tenant} })
		if rounds != 3 {
			t.Errorf("%d rounds in two hours and a half, want one at once and one an hour", rounds)
		}
	})
}
