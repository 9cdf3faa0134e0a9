package cluster

import (
	"encoding/binary"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/hashicorp/raft"
)

// commitTracker keeps the commit index in the log itself: the last entry of
// every write carries what was known to be committed then, in its Extensions.
// So both become durable together, and a node that restarts without a quorum
// can apply what it knows to be committed.
//
// It is the topmost layer: raft's LogCache does not pass these methods on.
// Extensions stay on this node; GetLog hides them from replication.
type commitTracker struct {
	logStore
	staged  atomic.Uint64
	last    atomic.Uint64 // index of the last entry written; may be above a truncated tail
	ceiling uint64        // GetCommitIndex answers at most this; set once before raft starts
}

var (
	_ raft.CommitTrackingLogStore = (*commitTracker)(nil)
	_ raft.MonotonicLogStore      = (*commitTracker)(nil)
)

// extensionTag tells our Extensions from any other's: it is followed by the
// commit index, 8 bytes big endian.
const extensionTag = 'c'

// maxScan is how many entries GetCommitIndex looks back for a commit index.
// Only a truncated tail makes the last entry lack one, and a write has at most
// maxAppendEntries entries.
const maxScan = 4 * maxAppendEntries

func (t *commitTracker) StoreLog(l *raft.Log) error { return t.StoreLogs([]*raft.Log{l}) }

func (t *commitTracker) StoreLogs(logs []*raft.Log) error {
	if len(logs) == 0 {
		return nil
	}
	last := *logs[len(logs)-1] // raft keeps using its entries: change a copy
	last.Extensions = binary.BigEndian.AppendUint64([]byte{extensionTag}, t.staged.Load())
	logs = slices.Clone(logs)
	logs[len(logs)-1] = &last
	err := t.logStore.StoreLogs(logs)
	if err == nil {
		t.last.Store(last.Index)
	}
	return err
}

func (t *commitTracker) GetLog(index uint64, l *raft.Log) error {
	err := t.logStore.GetLog(index, l)
	l.Extensions = nil
	return err
}

// StageCommitIndex implements raft.CommitTrackingLogStore.
func (t *commitTracker) StageCommitIndex(index uint64) error {
	t.staged.Store(index)
	return nil
}

// GetCommitIndex implements raft.CommitTrackingLogStore.
func (t *commitTracker) GetCommitIndex() (uint64, error) {
	first, last, err := bounds(t.logStore)
	if err != nil || last == 0 {
		return 0, err
	}
	for i, n := last, 0; i >= first && n < maxScan; i, n = i-1, n+1 {
		var l raft.Log
		if err := t.logStore.GetLog(i, &l); err != nil {
			return 0, fmt.Errorf("read log entry %d: %w", i, err)
		}
		if len(l.Extensions) == 9 && l.Extensions[0] == extensionTag {
			return min(binary.BigEndian.Uint64(l.Extensions[1:]), last, t.ceiling), nil
		}
	}
	return 0, nil
}

// setCeiling bounds what raft restores at its start around two faults of
// raft v1.8.0 in restoring committed entries: those that it restores are never
// searched for configurations, so a node would come back without knowing its
// voters; and they are queued for a state machine that does not run yet, so
// more than 128 batches would hang the start for ever. What the ceiling holds
// back is applied after an election, as without the feature. The node takes a
// snapshot after each change of the configuration, which lifts the ceiling.
//
// snapshot is the index of the snapshot that raft will start from.
func (t *commitTracker) setCeiling(snapshot uint64) error {
	t.ceiling = snapshot + 120*maxAppendEntries
	first, last, err := bounds(t.logStore)
	if err != nil {
		return err
	}
	for i := max(first, snapshot+1); i <= min(last, t.ceiling); i++ {
		var l raft.Log
		if err := t.logStore.GetLog(i, &l); err != nil {
			return fmt.Errorf("read log entry %d: %w", i, err)
		}
		if l.Type == raft.LogConfiguration {
			t.ceiling = i - 1
			return nil
		}
	}
	return nil
}

func bounds(s raft.LogStore) (first, last uint64, err error) {
	if first, err = s.FirstIndex(); err != nil {
		return 0, 0, fmt.Errorf("read first index of the log: %w", err)
	}
	if last, err = s.LastIndex(); err != nil {
		return 0, 0, fmt.Errorf("read last index of the log: %w", err)
	}
	return max(first, 1), last, nil
}
