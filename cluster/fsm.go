package cluster

import (
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"github.com/bulkhead-ai/bulkhead/cluster/state"
	"github.com/hashicorp/raft"
)

// fsm hands committed commands to the state machine, in order, on raft's
// apply goroutine. After the first command that it cannot follow it applies
// nothing more and writes no snapshot: the disk then still holds the truth for
// a build that can.
type fsm struct {
	state    *state.State
	applied  func()      // after every applied command and restore
	trip     func(error) // the node cannot follow
	reshaped func()      // the configuration of the cluster changed
	broken   atomic.Bool
	unread   atomic.Pointer[error] // why a snapshot could not be restored
	live     atomic.Bool           // raft has started
}

var (
	_ raft.FSM                = (*fsm)(nil)
	_ raft.ConfigurationStore = (*fsm)(nil)
)

// answered is what Apply answers through raft's future.
type answered struct {
	result any
	err    error // *bulkhead.Error of the state machine, or errStopped
}

func (f *fsm) Apply(l *raft.Log) any {
	if f.broken.Load() {
		return answered{err: errStopped}
	}
	env, err := command.Decode(l.Data)
	if err != nil {
		return f.stop(fmt.Errorf("command at index %d: %w", l.Index, err))
	}
	result, err := f.state.Apply(l.Index, env)
	var refusal *bulkhead.Error
	if err != nil && !errors.As(err, &refusal) {
		return f.stop(err)
	}
	f.applied()
	return answered{result, err}
}

func (f *fsm) stop(err error) answered {
	f.broken.Store(true)
	f.trip(err)
	return answered{err: errStopped}
}

// StoreConfiguration implements raft.ConfigurationStore.
func (f *fsm) StoreConfiguration(uint64, raft.Configuration) { f.reshaped() }

func (f *fsm) Snapshot() (raft.FSMSnapshot, error) {
	if f.broken.Load() {
		return nil, errStopped
	}
	return snapshot{f.state.View()}, nil
}

func (f *fsm) Restore(r io.ReadCloser) error {
	defer r.Close()
	if err := f.state.Restore(r); err != nil {
		err = fmt.Errorf("restore snapshot: %w", err)
		f.unread.Store(&err)
		if f.live.Load() {
			f.stop(err)
		}
		return err
	}
	f.applied()
	return nil
}

// snapshot is a View that raft keeps while it writes it out.
type snapshot struct{ view *state.View }

func (s snapshot) Persist(sink raft.SnapshotSink) error {
	if _, err := s.view.WriteTo(sink); err != nil {
		return errors.Join(err, sink.Cancel())
	}
	return sink.Close()
}

func (snapshot) Release() {}
