package cluster

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/bulkhead-ai/bulkhead/worker/durable"
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
//	joining         the node waits to be taken in and has nothing yet
//	wal/            raft-wal: log segments and wal-meta.db (term, vote)
//	snapshots/      the newest two
//	carry.json      the log while Purge moves it; there after a crash only
//	peers.info      the members, for people; renamed to peers.json it forces them (see Recover)
const (
	lockFile     = "lock"
	idFile       = "node-id"
	joiningFile  = "joining"
	walDir       = "wal"
	snapshotDir  = "snapshots" // raft's name
	snapshotKeep = 2
	segmentBytes = 16 << 20 // preallocated; a log of a few small commands a second fills it in hours
	cacheEntries = 512
	longPatience = time.Hour // of commands that an operator runs on a stopped node
)

// disk is everything of a node that is open on disk.
type disk struct {
	dir  string
	lock *os.File
	wal  *wal.WAL

	rotating *rotatingLog
	guard    *stallGuard
	votes    raft.StableStore
	logs     *commitTracker
	snaps    raft.SnapshotStore
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
	if err := recoverCarry(d.wal, cfg.Dir); err != nil {
		return err
	}
	if err := clearUnfinished(cfg.Dir); err != nil {
		return err
	}
	d.rotating = &rotatingLog{logStore: d.wal, dir: cfg.Dir}
	d.guard = &stallGuard{logStore: d.rotating, limit: cfg.StallTimeout, before: cfg.BeforeWrite, trip: trip}
	d.votes = guardedStable{d.wal, d.guard}
	cache, err := raft.NewLogCache(cacheEntries, d.guard)
	if err != nil {
		return fmt.Errorf("open log %s: %w", wdir, err)
	}
	d.logs = &commitTracker{logStore: cache}
	d.snaps, err = openSnapshots(cfg.Dir, log)
	return err
}

// prepareCeiling readies the log for raft's start and answers the last index on
// disk.
func (d *disk) prepareCeiling() (last uint64, err error) {
	snap, err := d.usableSnapshot()
	if err != nil {
		return 0, err
	}
	if last, err = d.logs.LastIndex(); err != nil {
		return 0, fmt.Errorf("read last index of the log: %w", err)
	}
	d.logs.last.Store(last)
	return max(snap, last), d.logs.setCeiling(snap)
}

// usableSnapshot answers the index of the snapshot that raft will start from:
// the newest that is whole, 0 if there is none.
func (d *disk) usableSnapshot() (uint64, error) {
	metas, err := d.snaps.List()
	if err != nil {
		return 0, fmt.Errorf("list snapshots: %w", err)
	}
	for _, m := range metas {
		if _, r, err := d.snaps.Open(m.ID); err == nil { // reads it all, for its checksum
			return m.Index, r.Close()
		}
	}
	return 0, nil
}

// identity checks that the directory belongs to the node and reports whether
// it is new. A directory that was complete once and lost its log is refused:
// starting over would forget every revoked key. One that waits to be taken in
// has nothing to lose.
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
	if known && !exists && !d.joining() {
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
	return durable.Replace(path, []byte(node+"\n"))
}

// joining reports whether the directory waits to be taken in. The mark outlives
// a restart without Config.Join: such a node must not begin a cluster.
func (d *disk) joining() bool {
	_, err := os.Stat(filepath.Join(d.dir, joiningFile))
	return err == nil
}

func (d *disk) markJoining() error {
	return durable.Replace(filepath.Join(d.dir, joiningFile), []byte("waits to be taken into a cluster\n"))
}

func (d *disk) joined() error { return durable.Remove(filepath.Join(d.dir, joiningFile)) }

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
