package cluster

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
	walfs "github.com/hashicorp/raft-wal/fs"
	"github.com/hashicorp/raft-wal/segment"
	"github.com/hashicorp/raft-wal/types"
	"golang.org/x/sys/unix"
)

// The layout of a node's directory, everything 0700 and 0600:
//
//	lock            held while the node runs
//	node-id         whose log this is; written last, so it says that the rest is complete
//	wal/            raft-wal: log segments and wal-meta.db (term, vote)
//	snapshots/      the newest two
const (
	lockFile     = "lock"
	idFile       = "node-id"
	walDir       = "wal"
	snapshotKeep = 2
	segmentBytes = 16 << 20 // preallocated; a log of a few small commands a second fills it in hours
	cacheEntries = 512
)

// disk is everything of a node that is open on disk.
type disk struct {
	dir   string
	lock  *os.File
	wal   *wal.WAL
	logs  *commitTracker
	snaps raft.SnapshotStore
}

// openDisk opens or creates the directory. trip is called at most once, from
// any goroutine, when the log can no longer be written.
func openDisk(cfg *Config, log *raftLog, trip func(error)) (*disk, error) {
	d := &disk{dir: cfg.Dir}
	if err := d.open(cfg, log, trip); err != nil {
		return nil, errors.Join(err, d.close())
	}
	return d, nil
}

func (d *disk) open(cfg *Config, log *raftLog, trip func(error)) (err error) {
	wdir := filepath.Join(cfg.Dir, walDir)
	for _, dir := range []string{cfg.Dir, wdir} {
		if err := privateDir(dir); err != nil {
			return err
		}
	}
	if d.lock, err = lockDir(cfg.Dir); err != nil {
		return err
	}
	d.wal, err = wal.Open(wdir, wal.WithLogger(log.Named("wal")), wal.WithSegmentSize(segmentBytes),
		wal.WithSegmentFiler(segment.NewFiler(wdir, privateFS{walfs.New()})))
	if err != nil {
		return fmt.Errorf("open log %s: %w", wdir, err)
	}
	if err := privateTree(wdir); err != nil {
		return err
	}
	guard := &stallGuard{logStore: d.wal, limit: cfg.StallTimeout, trip: trip}
	cache, err := raft.NewLogCache(cacheEntries, guard)
	if err != nil {
		return fmt.Errorf("open log %s: %w", wdir, err)
	}
	d.logs = &commitTracker{logStore: cache}
	if d.snaps, err = openSnapshots(cfg.Dir, log); err != nil {
		return err
	}
	return d.prepareCeiling()
}

func (d *disk) prepareCeiling() error {
	metas, err := d.snaps.List()
	if err != nil {
		return fmt.Errorf("list snapshots: %w", err)
	}
	var oldest uint64
	for i, m := range metas {
		if i == 0 || m.Index < oldest {
			oldest = m.Index
		}
	}
	return d.logs.setCeiling(oldest)
}

// identity checks that the directory belongs to the node and reports whether
// it is new. A directory that was complete once and lost its log is refused:
// starting over would forget every revoked key.
func (d *disk) identity(node string) (fresh bool, err error) {
	raw, err := os.ReadFile(filepath.Join(d.dir, idFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("read node id: %w", err)
	}
	known := err == nil
	if id := strings.TrimSpace(string(raw)); known && id != node {
		return false, fmt.Errorf("directory %s belongs to node %q, not to %q", d.dir, id, node)
	}
	exists, err := raft.HasExistingState(d.logs, d.wal, d.snaps)
	if err != nil {
		return false, fmt.Errorf("look for a log in %s: %w", d.dir, err)
	}
	if known && !exists {
		return false, fmt.Errorf("directory %s has lost its log; restore it, or remove the directory to begin anew", d.dir)
	}
	return !exists, nil
}

// claim writes the node id, durably.
func (d *disk) claim(node string) error {
	path := filepath.Join(d.dir, idFile)
	if raw, err := os.ReadFile(path); err == nil && strings.TrimSpace(string(raw)) == node {
		return nil
	}
	tmp := path + ".tmp"
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("write node id: %w", err)
	}
	_, err = f.WriteString(node + "\n")
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err == nil {
		err = syncDir(d.dir)
	}
	if err != nil {
		return fmt.Errorf("write node id: %w", err)
	}
	return nil
}

func (d *disk) close() error {
	var err error
	if d.wal != nil {
		err = d.wal.Close()
	}
	if d.lock != nil {
		err = errors.Join(err, d.lock.Close())
	}
	d.wal, d.lock = nil, nil
	return err
}

// lockDir keeps a second process away: two writers would destroy the log.
func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: another process uses it: %w", dir, err)
	}
	return f, nil
}

// privateFS makes raft-wal's segments private; it creates them 0644.
type privateFS struct{ *walfs.FS }

func (p privateFS) Create(dir, name string, size uint64) (types.WritableFile, error) {
	f, err := p.FS.Create(dir, name, size)
	if err == nil {
		err = os.Chmod(filepath.Join(dir, name), 0o600)
	}
	return f, err
}

func privateDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("create directory: %w", err)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return fmt.Errorf("make directory private: %w", err)
	}
	return nil
}

// privateTree takes group and others' rights away from everything below dir.
func privateTree(dir string) error {
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.IsDir() {
			err = os.Chmod(path, 0o700)
		} else if err == nil {
			err = os.Chmod(path, 0o600)
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil // removed meanwhile
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("make %s private: %w", dir, err)
	}
	return nil
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
