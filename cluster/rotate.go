package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/bulkhead-ai/bulkhead/worker/durable"
	"github.com/hashicorp/raft"
)

// carryFile holds the entries of the log while they move to a fresh segment.
const carryFile = "carry.json"

// maxCarry bounds what is moved at once, in bytes of entries.
const maxCarry = 32 << 20

// errCarry says that there is too much to move.
var errCarry = errors.New("too many entries came meanwhile")

// rotatingLog can move its entries to a fresh segment file. raft-wal begins one
// only when the last is full, and a truncated log still holds the deleted
// entries in the file that it goes on with.
//
// It is the lowest layer: whoever reads or writes the log waits while it moves.
type rotatingLog struct {
	logStore
	dir string

	mu sync.RWMutex
}

func (l *rotatingLog) StoreLog(e *raft.Log) error { return l.StoreLogs([]*raft.Log{e}) }

func (l *rotatingLog) StoreLogs(entries []*raft.Log) error {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.logStore.StoreLogs(entries)
}

func (l *rotatingLog) DeleteRange(from, to uint64) error {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.logStore.DeleteRange(from, to)
}

func (l *rotatingLog) GetLog(index uint64, e *raft.Log) error {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.logStore.GetLog(index, e)
}

func (l *rotatingLog) FirstIndex() (uint64, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.logStore.FirstIndex()
}

func (l *rotatingLog) LastIndex() (uint64, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.logStore.LastIndex()
}

// rotate writes the entries to a file beside the log, empties the log, which
// removes its segments, and puts the entries back. A crash leaves the log or the
// file whole; recoverCarry finishes it.
func (l *rotatingLog) rotate() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	entries, err := l.all()
	if err != nil || len(entries) == 0 {
		return err
	}
	raw, err := json.Marshal(entries)
	if err != nil {
		return fmt.Errorf("encode the log's entries: %w", err)
	}
	path := filepath.Join(l.dir, carryFile)
	if err := durable.Replace(path, raw); err != nil {
		return err
	}
	if err := l.logStore.DeleteRange(entries[0].Index, entries[len(entries)-1].Index); err != nil {
		return fmt.Errorf("empty the log: %w", err)
	}
	if err := storeAll(l.logStore, entries); err != nil {
		return err
	}
	return durable.Remove(path)
}

// all reads the log.
func (l *rotatingLog) all() ([]*raft.Log, error) {
	first, last, err := bounds(l.logStore)
	if err != nil || last == 0 {
		return nil, err
	}
	var entries []*raft.Log
	size := 0
	for i := first; i <= last; i++ {
		e := new(raft.Log)
		if err := l.logStore.GetLog(i, e); err != nil {
			return nil, fmt.Errorf("read log entry %d: %w", i, err)
		}
		if size += len(e.Data); size > maxCarry {
			return nil, errCarry
		}
		entries = append(entries, e)
	}
	return entries, nil
}

func storeAll(store raft.LogStore, entries []*raft.Log) error {
	for len(entries) > 0 {
		n := min(len(entries), maxAppendEntries)
		if err := store.StoreLogs(entries[:n]); err != nil {
			return fmt.Errorf("put the log's entries back: %w", err)
		}
		entries = entries[n:]
	}
	return nil
}

// recoverCarry puts back what a crash during rotate left outside the log.
func recoverCarry(store raft.LogStore, dir string) error {
	path := filepath.Join(dir, carryFile)
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the log's entries: %w", err)
	}
	var entries []*raft.Log
	if err := json.Unmarshal(raw, &entries); err != nil {
		return fmt.Errorf("read the log's entries in %s: %w", path, err)
	}
	_, last, err := bounds(store)
	if err != nil {
		return err
	}
	for len(entries) > 0 && entries[0].Index <= last {
		entries = entries[1:]
	}
	if err := storeAll(store, entries); err != nil {
		return err
	}
	return durable.Remove(path)
}
