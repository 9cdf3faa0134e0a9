package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/bulkhead-ai/bulkhead/worker/durable"
	"github.com/hashicorp/raft"
	"go.uber.org/zap"
)

// purgePause is between two looks at what is not done yet.
const purgePause = 20 * time.Millisecond

// Purge makes this node's disk forget the past: afterwards Raft's log and
// snapshots in its directory hold nothing that the state did not hold when Purge
// was called. It takes two snapshots, because as many are kept, empties the log
// up to them and begins a new segment file. What is deleted is unlinked; the
// blocks of the device are not overwritten.
//
// A member that lags behind gets a snapshot instead of the log. Purge may be
// repeated; one goes on at a time. On an error nothing is lost and some of the
// past may still be there.
func (n *Node) Purge(ctx context.Context) error {
	select {
	case n.purging <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("purge: %w", ctx.Err())
	}
	defer func() { <-n.purging }()
	if err := n.stopped(); err != nil {
		return fmt.Errorf("purge: %w", err)
	}
	began := time.Now()
	if err := n.purge(ctx); err != nil {
		return fmt.Errorf("purge: %w", err)
	}
	n.cfg.Log.Info("cluster log and snapshots purged", zap.Duration("took", time.Since(began)))
	return nil
}

func (n *Node) purge(ctx context.Context) error {
	old, err := n.disk.past()
	if err != nil {
		return err
	}
	if err := n.keepTrailing(0); err != nil {
		return err
	}
	defer func() {
		if err := n.keepTrailing(trailingLogs); err != nil {
			n.cfg.Log.Error("keep entries behind snapshots again", zap.Error(err))
		}
	}()
	for range snapshotKeep {
		if err := n.purgeSnapshot(ctx); err != nil {
			return err
		}
	}
	if err := n.rotate(ctx); err != nil {
		return err
	}
	return n.disk.awaitGone(ctx, old)
}

// rotate leaves the segments behind. Where so much came since the snapshot that
// it cannot be moved, another snapshot comes first.
func (n *Node) rotate(ctx context.Context) error {
	for {
		var tooMuch error // which must not stop the node as a failed write does
		err := n.disk.guard.write("rotate log", func() error {
			err := n.disk.rotating.rotate()
			if errors.Is(err, errCarry) {
				tooMuch, err = err, nil
			}
			return err
		})
		if err != nil || tooMuch == nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("%w: %w", tooMuch, err)
		}
		if err := n.purgeSnapshot(ctx); err != nil {
			return err
		}
	}
}

// keepTrailing says how many entries are kept behind a snapshot.
func (n *Node) keepTrailing(entries uint64) error {
	rc := n.raft.ReloadableConfig()
	rc.TrailingLogs = entries
	if err := n.raft.ReloadConfig(rc); err != nil {
		return fmt.Errorf("keep %d entries behind a snapshot: %w", entries, err)
	}
	return nil
}

// purgeSnapshot insists on a snapshot: one is not taken while the membership
// changes.
func (n *Node) purgeSnapshot(ctx context.Context) error {
	for {
		err := n.await(ctx, "take a snapshot", func() error { return n.raft.Snapshot().Error() })
		if err == nil || errors.Is(err, raft.ErrRaftShutdown) || ctx.Err() != nil || n.stopped() != nil {
			return err
		}
		n.cfg.Log.Debug("cluster snapshot", zap.Error(err))
		if err := rest(ctx); err != nil {
			return fmt.Errorf("take a snapshot: %w", err)
		}
	}
}

// past lists the files that hold the log and the snapshots, by their paths.
func (d *disk) past() ([]string, error) {
	segments, err := filepath.Glob(filepath.Join(d.dir, walDir, "*.wal"))
	if err != nil {
		return nil, fmt.Errorf("list the log's files: %w", err)
	}
	snapshots, err := filepath.Glob(filepath.Join(d.dir, snapshotDir, "*"))
	if err != nil {
		return nil, fmt.Errorf("list snapshots: %w", err)
	}
	return slices.Concat(segments, snapshots), nil
}

// awaitGone waits until the files are removed: the log's are when their last
// reader is done.
func (d *disk) awaitGone(ctx context.Context, paths []string) error {
	for _, path := range paths {
		for {
			_, err := os.Lstat(path)
			if errors.Is(err, os.ErrNotExist) {
				break
			}
			if err != nil {
				return fmt.Errorf("look whether the past is gone: %w", err)
			}
			if rest(ctx) != nil {
				return fmt.Errorf("%s is still there: %w", filepath.Base(path), ctx.Err())
			}
		}
	}
	return syncAll(filepath.Join(d.dir, walDir), filepath.Join(d.dir, snapshotDir))
}

// clearUnfinished removes what a crash left of snapshots that were being written
// or restored. Nobody would ever look for it there.
func clearUnfinished(dir string) error {
	for _, pattern := range []string{filepath.Join(snapshotDir, "*.tmp"), restorePattern} {
		left, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			return fmt.Errorf("list unfinished files: %w", err)
		}
		for _, path := range left {
			if err := os.RemoveAll(path); err != nil {
				return fmt.Errorf("remove %s: %w", strings.TrimPrefix(path, dir), err)
			}
		}
	}
	return durable.Sweep(dir)
}

func syncAll(dirs ...string) error {
	for _, dir := range dirs {
		if err := durable.SyncDir(dir); err != nil {
			return fmt.Errorf("sync %s: %w", dir, err)
		}
	}
	return nil
}

func rest(ctx context.Context) error {
	timer := time.NewTimer(purgePause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
