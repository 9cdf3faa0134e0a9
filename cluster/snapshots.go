package cluster

import (
	"fmt"
	"path/filepath"

	"github.com/hashicorp/raft"
)

// privateSnapshots makes raft's snapshot files 0600 and their directories
// 0700; raft creates them open to all. Until a snapshot is complete the
// directory above keeps others out.
type privateSnapshots struct {
	raft.SnapshotStore
	dir string
}

func openSnapshots(dir string, log *raftLog) (raft.SnapshotStore, error) {
	store, err := raft.NewFileSnapshotStoreWithLogger(dir, snapshotKeep, log.Named("snapshot"))
	if err != nil {
		return nil, fmt.Errorf("open snapshots: %w", err)
	}
	s := privateSnapshots{store, filepath.Join(dir, snapshotDir)}
	return s, privateTree(s.dir)
}

func (s privateSnapshots) Create(version raft.SnapshotVersion, index, term uint64, conf raft.Configuration,
	confIndex uint64, trans raft.Transport) (raft.SnapshotSink, error) {
	sink, err := s.SnapshotStore.Create(version, index, term, conf, confIndex, trans)
	if err != nil {
		return nil, err
	}
	return &privateSink{sink, s.dir}, nil
}

type privateSink struct {
	raft.SnapshotSink
	dir string
}

func (s *privateSink) Close() error {
	if err := s.SnapshotSink.Close(); err != nil {
		return err
	}
	return privateTree(s.dir)
}
