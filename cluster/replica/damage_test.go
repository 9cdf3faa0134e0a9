package replica

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"github.com/bulkhead-ai/bulkhead/worker/control"
	"github.com/bulkhead-ai/bulkhead/worker/sealed"
)

// segments lists a node's segment files, oldest first.
func (n *rigNode) segments(t testing.TB) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(n.journalDir(), "*.seg"))
	if err != nil || len(names) == 0 {
		t.Fatalf("segments of %s: %v, %v", n.id, names, err)
	}
	slices.Sort(names)
	return names
}

// change edits a file.
func change(t testing.TB, name string, edit func(b []byte)) {
	t.Helper()
	b, err := os.ReadFile(name)
	must(t, err)
	edit(b)
	must(t, os.WriteFile(name, b, 0o600))
}

// used is the length of a segment up to its last byte that is not zero.
func used(b []byte) int { return len(bytes.TrimRight(b, "\x00")) }

// TestDamagedCopyIsRepaired: whatever bit is wrong on a peer's disk, its owner
// makes the copy equal again, and until then it is not counted.
func TestDamagedCopyIsRepaired(t *testing.T) {
	r := newRig(t, 3)
	o, err := r.own(0, OwnerConfig{})
	must(t, err)
	for i := range 200 {
		must(t, o.write(1, i*13%2500))
	}
	must(t, o.catchUp("n1"))
	must(t, o.catchUp("n2"))
	rng := rand.New(rand.NewPCG(7, 7))
	for _, at := range []string{"newest", "oldest", "header", "torn", "gone"} {
		t.Run(at, func(t *testing.T) {
			n := r.nodes[2]
			n.stop()
			names := n.segments(t)
			newest := names[len(names)-1]
			flip := func(from int) func([]byte) {
				return func(b []byte) { b[from+rng.IntN(used(b)-from)] ^= 1 << rng.IntN(8) }
			}
			switch at {
			case "newest":
				change(t, newest, flip(sealed.SectorSize))
			case "oldest":
				change(t, names[0], flip(sealed.SectorSize))
			case "header":
				change(t, newest, func(b []byte) { b[rng.IntN(sealed.SectorSize)] ^= 4 })
			case "torn":
				change(t, newest, func(b []byte) { clear(b[(used(b)-1)/sealed.SectorSize*sealed.SectorSize:]) })
			case "gone":
				must(t, os.Remove(names[len(names)/2]))
			}
			n.start()
			if at == "oldest" || at == "gone" { // not seen when the copy is opened
				if err := n.k.Scrub(t.Context(), tenant); !errors.Is(err, ErrDamaged) {
					t.Fatalf("scrub of a damaged copy: %v", err)
				}
				n.stop() // the streams of before
				n.start()
			}
			must(t, o.write(1, 100))
			must(t, o.catchUp("n2"))
			r.sameFiles(0, 2)
			if err := n.k.Scrub(t.Context(), tenant); err != nil {
				t.Errorf("scrub of a repaired copy: %v", err)
			}
			for _, c := range n.k.Copies() {
				if c.Incomplete {
					t.Error("a repaired copy is not counted")
				}
			}
		})
	}
}

// TestTakeOverRepairsOwnCopy: a node whose own copy is damaged takes over from
// the two others, and not from one of them.
func TestTakeOverRepairsOwnCopy(t *testing.T) {
	r := newRig(t, 3)
	o, err := r.own(0, OwnerConfig{})
	must(t, err)
	for range 50 {
		must(t, o.write(1, 700))
	}
	must(t, o.catchUp("n1"))
	must(t, o.catchUp("n2"))
	o.close()
	voters := r.voters()
	n := r.nodes[1]
	n.stop()
	names := n.segments(t)
	change(t, names[len(names)-1], func(b []byte) { b[sealed.SectorSize+30] ^= 1 })
	n.start()
	r.nodes[0].stop()
	if _, err := r.own(1, OwnerConfig{Voters: voters}); !errors.Is(err, ErrDamaged) {
		t.Errorf("took over with a damaged copy and one other: %v", err)
	}
	r.nodes[0].start()
	o, err = r.own(1, OwnerConfig{Voters: voters})
	must(t, err)
	must(t, o.catchUp("n0"))
	r.sameFiles(0, 1)
}

func TestPromisesSurviveRestarts(t *testing.T) {
	r := newRig(t, 3)
	r.epoch = 6
	o, err := r.own(0, OwnerConfig{})
	must(t, err)
	must(t, o.write(1, 0))
	o.close()
	for _, n := range r.nodes {
		receiver := n.k.Receiver()
		n.stop()
		n.start()
		if n.k.Receiver() != receiver {
			t.Errorf("%s has become another disk", n.id)
		}
	}
	_, err = r.nodes[1].k.TakeOver(t.Context(), TakeOver{Tenant: tenant, Epoch: 6, Voters: r.voters()})
	var e *bulkhead.Error
	if !errors.Is(err, ErrFenced) || !errors.As(err, &e) || e.Code != "fenced" || e.Kind != bulkhead.Unavailable {
		t.Errorf("an epoch below the promised one: %v", err)
	}
	_, err = r.nodes[1].k.TakeOver(t.Context(), TakeOver{Tenant: tenant, Epoch: 8, Voters: r.voters(), MinSeq: 3})
	if !errors.Is(err, ErrBehindLedger) {
		t.Errorf("without a record that is booked: %v", err)
	}
	if pos, err := r.nodes[1].k.TakeOver(t.Context(), TakeOver{Tenant: tenant, Epoch: 8, Voters: r.voters(), MinSeq: 2}); err != nil || pos.Seq != 2 {
		t.Errorf("with all that is booked: %+v, %v", pos, err)
	}
}

// TestWipedDiskIsReplaced: a new disk is not counted as the old one, and becomes
// a voter when it holds everything.
func TestWipedDiskIsReplaced(t *testing.T) {
	r := newRig(t, 3)
	updates := make(chan Replicas, 1)
	asked := make(chan Replicas, 4)
	o, err := r.own(0, OwnerConfig{Updates: updates, Promote: func(_ context.Context, _ []command.Replica, want Replicas) (Replicas, error) {
		asked <- want
		if len(asked) == 1 {
			return Replicas{}, errors.New("outcome unknown")
		}
		return want, nil
	}})
	must(t, err)
	for range 100 {
		must(t, o.write(1, 900))
	}
	n, voters := r.nodes[2], r.voters()
	n.stop()
	must(t, os.RemoveAll(n.dir))
	must(t, os.MkdirAll(n.dir, 0o700))
	n.start()
	if n.k.Receiver() == voters[2].Receiver {
		t.Fatal("a wiped disk keeps its identity")
	}
	fresh := command.Replica{Node: "n2", Receiver: n.k.Receiver()}
	must(t, o.write(1, 0)) // n1 is the quorum
	updates <- Replicas{Voters: voters, Learners: []command.Replica{fresh}}
	for try := range 2 {
		select {
		case want := <-asked:
			if !sameSet(want.Voters, []command.Replica{voters[0], voters[1], fresh}) || len(want.Learners) > 0 {
				t.Errorf("asked for %+v", want)
			}
			if try == 0 {
				asked <- want // the second call sees that there was a first
			}
		case <-time.After(time.Minute):
			t.Fatal("nobody asked for the promotion")
		}
	}
	must(t, o.catchUp("n2"))
	r.nodes[1].stop()
	must(t, o.write(1, 0)) // the new disk is the quorum now
	r.sameFiles(0, 2)
}

func TestDiskErrorPoisons(t *testing.T) {
	r := newRig(t, 3)
	o, err := r.own(0, OwnerConfig{})
	must(t, err)
	must(t, o.catchUp("n1"))
	must(t, o.catchUp("n2"))
	n := r.nodes[2]
	n.faults.fail(syscall.EIO, nil)
	must(t, o.write(1, 0)) // n1 is enough
	poisoned := func() bool {
		return slices.ContainsFunc(n.k.Copies(), func(c CopyStatus) bool { return errors.Is(c.Err, ErrPoisoned) })
	}
	for end := time.Now().Add(time.Minute); !poisoned() && time.Now().Before(end); time.Sleep(time.Millisecond) {
	}
	if !poisoned() {
		t.Fatal("a failed sync is not reported")
	}
	n.faults.fail(nil, nil)
	syncs := n.faults.count()
	for range 5 {
		must(t, o.write(1, 0))
	}
	r.nodes[1].stop()
	if _, err := r.own(0, OwnerConfig{}); !errors.Is(err, ErrNoQuorum) {
		t.Errorf("took over with a poisoned copy as the quorum: %v", err)
	}
	if again := n.faults.count(); again != syncs {
		t.Errorf("a poisoned copy was synced %d times more", again-syncs)
	}
	n.stop()
	n.start() // a restart reads what is really there
	o, err = r.own(0, OwnerConfig{})
	must(t, err)
	must(t, o.catchUp("n2"))
	r.sameFiles(0, 2)
}

func (d *faultDisk) count() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.datasyncs
}

func TestFullDisk(t *testing.T) {
	r := newRig(t, 3)
	o, err := r.own(0, OwnerConfig{})
	must(t, err)
	must(t, o.catchUp("n2"))
	n := r.nodes[2]
	n.faults.fail(nil, syscall.ENOSPC)
	for i := range 120 { // beyond the segment that is there
		must(t, o.write(1, 1000+i))
	}
	low := func() bool {
		return slices.ContainsFunc(n.k.Copies(), func(c CopyStatus) bool { return errors.Is(c.Err, ErrLowSpace) })
	}
	for end := time.Now().Add(time.Minute); !low() && time.Now().Before(end); time.Sleep(time.Millisecond) {
	}
	if !low() {
		t.Error("a full disk is not reported")
	}
	n.faults.fail(nil, nil)
	must(t, o.catchUp("n2"))
	if low() {
		t.Error("the disk is still called full")
	}
	r.sameFiles(0, 2)
}

// TestTornTails: a copy whose last group was torn anywhere by a power cut opens
// without it; nothing before is given up.
func TestTornTails(t *testing.T) {
	d := newMemDisk()
	dir, err := d.view().OpenDir("journal", true)
	must(t, err)
	p, err := openPenman(dir, 1, 64<<10, func(control.Piece) {})
	must(t, err)
	for i := range 5 {
		must(t, p.write([]uint64{uint64(i + 1)}, 300))
		must(t, p.sync())
	}
	before := p.j.head
	from := p.j.off
	must(t, p.write([]uint64{6}, 5000))
	after := p.j.head
	to := p.j.off
	p.Close()
	f := d.dirs["journal"].live[sealed.SegmentName(1)]
	whole := slices.Clone(f.data)
	rng := rand.New(rand.NewPCG(3, 3))
	for mask := range 200 {
		f.data = slices.Clone(whole)
		torn := false
		for at := from; at < to; at += sealed.SectorSize {
			if rng.IntN(4) == 0 {
				clear(f.data[at : at+sealed.SectorSize])
				torn = true
			}
		}
		dir, err := d.view().OpenDir("journal", false)
		must(t, err)
		j, err := openJournal(dir, &spares{dir: dir}, 0, false)
		must(t, err)
		want := after
		if torn {
			want = before
		}
		if j.damage != nil || j.head != want {
			t.Errorf("mask %d: ends at %d, want %d; %v", mask, j.head.Seq, want.Seq, j.damage)
		}
		if torn && !sealed.AllZero(f.data[from:to]) {
			t.Errorf("mask %d: the torn group is still there", mask)
		}
		must(t, j.Close())
	}
}

func TestDiskFollowsNoLinks(t *testing.T) {
	base := t.TempDir()
	outside := filepath.Join(t.TempDir(), "outside")
	must(t, os.WriteFile(outside, []byte("secret"), 0o600))
	path := filepath.Join(base, "data", "journal")
	dir, err := Disk().OpenDir(path, true)
	must(t, err)
	defer dir.Close()
	must(t, os.Symlink(outside, filepath.Join(path, "link")))
	must(t, os.Link(outside, filepath.Join(path, "hard")))
	must(t, syscall.Mkfifo(filepath.Join(path, "fifo"), 0o600))
	for _, name := range []string{"link", "hard", "fifo", "../journal/x", "."} {
		if f, err := dir.Create(name); err == nil {
			f.Close()
			t.Errorf("created %s", name)
		}
		if f, err := dir.Open(name, true); err == nil {
			f.Close()
			t.Errorf("opened %s", name)
		}
	}
	if b, _ := os.ReadFile(outside); string(b) != "secret" {
		t.Error("a file outside was changed")
	}
	must(t, os.Rename(path, path+".away"))
	must(t, os.Symlink(base, path))
	if d, err := Disk().OpenDir(path, true); err == nil {
		d.Close()
		t.Error("opened a folder through a link")
	}
	info, err := os.Stat(path + ".away")
	must(t, err)
	if info.Mode().Perm() != 0o700 {
		t.Errorf("mode %v", info.Mode())
	}
}

func TestLockExcludes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "data", "journal")
	var dirs []Dir
	for range 2 {
		d, err := Disk().OpenDir(path, true)
		must(t, err)
		defer d.Close()
		dirs = append(dirs, d)
	}
	must(t, dirs[0].Lock())
	if err := dirs[1].Lock(); !errors.Is(err, ErrBusy) {
		t.Errorf("locked twice: %v", err)
	}
	must(t, dirs[0].Close())
	must(t, dirs[1].Lock())
}

// TestNoRoomForAPromise: a promise that finds the disk full is refused, and
// nothing else: as soon as there is room the copy counts again.
func TestNoRoomForAPromise(t *testing.T) {
	r := newRig(t, 3)
	o, err := r.own(0, OwnerConfig{})
	must(t, err)
	must(t, o.catchUp("n1"))
	must(t, o.catchUp("n2"))
	n := r.nodes[2]
	n.faults.failSmall(syscall.ENOSPC)
	_, err = r.own(0, OwnerConfig{})
	must(t, err)
	low := func() bool {
		return slices.ContainsFunc(n.k.Copies(), func(c CopyStatus) bool { return errors.Is(c.Err, ErrLowSpace) })
	}
	for end := time.Now().Add(time.Minute); !low() && time.Now().Before(end); time.Sleep(time.Millisecond) {
	}
	if !low() {
		t.Fatal("the full disk is not reported")
	}
	n.faults.failSmall(nil)
	r.nodes[1].stop()
	o, err = r.own(0, OwnerConfig{})
	must(t, err)
	must(t, o.catchUp("n2"))
	r.sameFiles(0, 2)
}
