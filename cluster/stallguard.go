package cluster

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// errStopped says that the node has stopped itself and writes nothing more.
var errStopped = errors.New("the node has stopped itself")

// logStore is what every layer of the log store offers to the one above.
type logStore interface {
	raft.LogStore
	raft.MonotonicLogStore
}

// stallGuard stops the node when a write to the log fails or does not return
// in time, whether it leads or follows: heartbeats pass by the disk, so nobody
// else would notice. Afterwards every write is refused, also the one that hung
// when it comes back: what it left on disk is for the next start to find out.
type stallGuard struct {
	logStore
	limit   time.Duration
	before  func() error // see Config.BeforeWrite; nil: nothing
	trip    func(error)  // called at most once
	tripped atomic.Bool
	writes  atomic.Uint64 // that came back
	took    durations     // of the writes of entries
}

func (g *stallGuard) StoreLog(l *raft.Log) error { return g.StoreLogs([]*raft.Log{l}) }

func (g *stallGuard) StoreLogs(logs []*raft.Log) error {
	began := time.Now()
	err := g.write("store log", func() error { return g.logStore.StoreLogs(logs) })
	g.took.add(time.Since(began))
	return err
}

func (g *stallGuard) DeleteRange(from, to uint64) error {
	return g.write("truncate log", func() error { return g.logStore.DeleteRange(from, to) })
}

// write does one write under watch.
func (g *stallGuard) write(what string, do func() error) error {
	if g.tripped.Load() {
		return fmt.Errorf("%s: %w", what, errStopped)
	}
	timer := time.AfterFunc(g.limit, func() {
		g.stop(fmt.Errorf("%s: the disk has not answered within %s", what, g.limit))
	})
	var err error
	if g.before != nil {
		err = g.before()
	}
	if err == nil {
		err = do()
	}
	timer.Stop()
	g.writes.Add(1)
	if err != nil {
		g.stop(fmt.Errorf("%s: %w", what, err))
		return err
	}
	if g.tripped.Load() {
		return fmt.Errorf("%s: %w", what, errStopped)
	}
	return nil
}

func (g *stallGuard) stop(err error) {
	if g.tripped.CompareAndSwap(false, true) {
		g.trip(err)
	}
}

// guardedStable watches the writes of term and vote with the log's guard.
type guardedStable struct {
	raft.StableStore
	guard *stallGuard
}

func (s guardedStable) Set(key, val []byte) error {
	return s.guard.write("store vote", func() error { return s.StableStore.Set(key, val) })
}

// SetUint64 hides the error of a node that stops: raft would panic. A term that
// is not on disk misleads nobody, because no vote (Set) and no entry follows it.
func (s guardedStable) SetUint64(key []byte, val uint64) error {
	err := s.guard.write("store term", func() error { return s.StableStore.SetUint64(key, val) })
	if s.guard.tripped.Load() {
		return nil
	}
	return err
}
