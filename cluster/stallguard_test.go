package cluster

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

// memLog is raft's memory store as a layer of the log store, with a write that
// can be held up or fail.
type memLog struct {
	*raft.InmemStore
	before func() error
	writes int
}

func (*memLog) IsMonotonic() bool { return true }

func (m *memLog) StoreLogs(logs []*raft.Log) error {
	m.writes++
	if m.before != nil {
		if err := m.before(); err != nil {
			return err
		}
	}
	return m.InmemStore.StoreLogs(logs)
}

func entry(i uint64) *raft.Log { return &raft.Log{Index: i, Term: 1, Type: raft.LogCommand} }

func TestStallGuardStopsOnAStalledWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &memLog{InmemStore: raft.NewInmemStore()}
		var trips []error
		g := &stallGuard{logStore: store, limit: 2 * time.Second, trip: func(err error) { trips = append(trips, err) }}
		store.before = func() error { time.Sleep(1900 * time.Millisecond); return nil }
		if err := g.StoreLog(entry(1)); err != nil || len(trips) != 0 {
			t.Fatalf("a write within the limit: %v, trips %v", err, trips)
		}
		store.before = func() error { time.Sleep(time.Minute); return nil }
		done := make(chan error, 1)
		go func() { done <- g.StoreLog(entry(2)) }()
		time.Sleep(2100 * time.Millisecond)
		synctest.Wait()
		if len(trips) != 1 {
			t.Fatalf("trips while the write hangs: %v, want one", trips)
		}
		if err := <-done; !errors.Is(err, errStopped) {
			t.Errorf("the late write answers %v", err)
		}
		store.before = nil
		before := store.writes
		if err := g.StoreLog(entry(3)); !errors.Is(err, errStopped) || store.writes != before {
			t.Errorf("a write after the stop: %v, %d writes reached the disk", err, store.writes-before)
		}
		if len(trips) != 1 {
			t.Errorf("trips: %v, want one", trips)
		}
	})
}

func TestStallGuardStopsOnAFailedWrite(t *testing.T) {
	disk := errors.New("input/output error")
	store := &memLog{InmemStore: raft.NewInmemStore(), before: func() error { return disk }}
	var trips []error
	g := &stallGuard{logStore: store, limit: time.Minute, trip: func(err error) { trips = append(trips, err) }}
	if err := g.StoreLog(entry(1)); !errors.Is(err, disk) {
		t.Errorf("a failed write answers %v", err)
	}
	store.before = nil
	if err := g.StoreLog(entry(1)); !errors.Is(err, errStopped) {
		t.Errorf("a write after a doubtful one: %v", err)
	}
	if len(trips) != 1 || !errors.Is(trips[0], disk) {
		t.Errorf("trips: %v", trips)
	}
}

func TestCommitTracker(t *testing.T) {
	store := &memLog{InmemStore: raft.NewInmemStore()}
	c := &commitTracker{logStore: store}
	write := func(staged uint64, logs ...*raft.Log) {
		t.Helper()
		if err := errors.Join(c.StageCommitIndex(staged), c.StoreLogs(logs)); err != nil {
			t.Fatal(err)
		}
	}
	want := func(commit uint64) {
		t.Helper()
		if err := c.setCeiling(0); err != nil {
			t.Fatal(err)
		}
		if got, err := c.GetCommitIndex(); err != nil || got != commit {
			t.Errorf("commit index %d, %v; want %d", got, err, commit)
		}
	}
	want(0)
	e := entry(1)
	write(0, e)
	if e.Extensions != nil {
		t.Error("raft's own entry was changed")
	}
	want(0)
	write(1, entry(2), entry(3), entry(4))
	want(1)
	write(4, entry(5))
	want(4)
	if err := c.DeleteRange(4, 5); err != nil { // the tail is truncated in the middle of a write
		t.Fatal(err)
	}
	want(0)
	write(99, entry(4)) // never above what is there
	want(4)
	conf := entry(5)
	conf.Type = raft.LogConfiguration
	write(4, conf)
	write(5, entry(6))
	want(4) // held below the configuration
	var l raft.Log
	if err := c.GetLog(6, &l); err != nil || l.Extensions != nil {
		t.Errorf("entry 6 shows its extensions: %v, %v", l.Extensions, err)
	}
}
