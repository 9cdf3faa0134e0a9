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
// in time. Afterwards every write is refused, also the one that hung when it
// comes back: what it left on disk is for the next start to find out.
type stallGuard struct {
	logStore
	limit   time.Duration
	trip    func(error) // called at most once
	tripped atomic.Bool
}

func (g *stallGuard) StoreLog(l *raft.Log) error { return g.StoreLogs([]*raft.Log{l}) }

func (g *stallGuard) StoreLogs(logs []*raft.Log) error {
	if g.tripped.Load() {
		return fmt.Errorf("store log: %w", errStopped)
	}
	timer := time.AfterFunc(g.limit, func() {
		g.stop(fmt.Errorf("a write to the log has not returned within %s", g.limit))
	})
	err := g.logStore.StoreLogs(logs)
	timer.Stop()
	if err != nil {
		g.stop(fmt.Errorf("write to the log: %w", err))
		return err
	}
	if g.tripped.Load() {
		return fmt.Errorf("store log: %w", errStopped)
	}
	return nil
}

func (g *stallGuard) stop(err error) {
	if g.tripped.CompareAndSwap(false, true) {
		g.trip(err)
	}
}
