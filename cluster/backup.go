package cluster

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/state"
	"github.com/hashicorp/raft"
)

const (
	restoreTimeout = 5 * time.Minute
	restorePattern = "restore-*.tmp"
)

// SnapshotInfo describes a saved snapshot of the whole state.
type SnapshotInfo struct {
	ClusterID string    `json:"cluster_id,omitempty"` // "": of a node that was in no cluster
	Index     uint64    `json:"index"`                // of the last command in it
	Time      time.Time `json:"time"`                 // when it was saved, UTC
	Size      int64     `json:"size"`                 // bytes of the state
	SHA256    [32]byte  `json:"-"`                    // of the state
	Tenants   int       `json:"tenants"`
	Keys      int       `json:"keys"` // revoked ones too
}

// SaveSnapshot writes the state to one file, which RestoreSnapshot reads. On the
// leader it contains every command that was acknowledged before the call; on
// another node what that node has applied. Secrets in it are sealed.
func (n *Node) SaveSnapshot(ctx context.Context, w io.Writer) error {
	if _, self := n.Leader(); self {
		if err := n.Barrier(ctx); err != nil {
			return fmt.Errorf("save snapshot: %w", err)
		}
	}
	if err := n.stopped(); err != nil {
		return fmt.Errorf("save snapshot: %w", err)
	}
	view := n.State().View()
	h := backupHeader{index: view.Index(), at: time.Now().UnixMilli()}
	if c, ok := view.Cluster(); ok {
		h.cluster = c.ID
	}
	sum := sha256.New() // the view does not change: it is written twice, not kept
	size, err := view.WriteTo(sum)
	if err != nil {
		return fmt.Errorf("save snapshot: %w", err)
	}
	h.size, h.sum = size, [32]byte(sum.Sum(nil))
	if _, err := w.Write(h.encode()); err != nil {
		return fmt.Errorf("save snapshot: %w", err)
	}
	if _, err := view.WriteTo(contextWriter{ctx, w}); err != nil {
		return fmt.Errorf("save snapshot: %w", err)
	}
	return nil
}

// InspectSnapshot reads a saved snapshot to its end and answers what is in it.
// An error means that it is damaged, or of a newer build.
func InspectSnapshot(r io.Reader) (SnapshotInfo, error) {
	info, _, err := readBackup(r)
	if err != nil {
		return SnapshotInfo{}, fmt.Errorf("inspect snapshot: %w", err)
	}
	return info, nil
}

// RestoreSnapshot replaces the state of the whole cluster by a saved one. Only
// the leader can; what was proposed meanwhile is not applied. Commands after the
// snapshot was saved are gone, revocations too; the audit trail alone goes on. It
// takes at most five minutes.
//
// Errors: invalid_request (snapshot_damaged) and conflict (foreign_snapshot: of
// another cluster) change nothing; unavailable; ErrUnknownOutcome.
func (n *Node) RestoreSnapshot(ctx context.Context, r io.Reader) error {
	if leader, self := n.Leader(); !self {
		return notLeading(leader)
	}
	ctx, cancel := context.WithTimeout(ctx, restoreTimeout)
	defer cancel()
	info, saved, err := readBackup(r)
	if err != nil {
		return bulkhead.E(bulkhead.InvalidRequest, "snapshot_damaged", "The snapshot is damaged or not one.").With(err)
	}
	if err := n.ownSnapshot(saved); err != nil {
		return err
	}
	f, err := os.CreateTemp(n.cfg.Dir, restorePattern)
	if err != nil {
		return fmt.Errorf("restore snapshot: %w", err)
	}
	defer os.Remove(f.Name())
	saved.KeepTrail(n.State().View())
	size, err := writeState(f, saved.View())
	if err != nil {
		return errors.Join(err, f.Close())
	}
	meta := &raft.SnapshotMeta{Version: raft.SnapshotVersionMax, Index: info.Index, Size: size}
	// raft may go on reading when the caller has lost patience.
	return n.await(ctx, "restore snapshot", func() error {
		defer f.Close()
		return n.raft.Restore(meta, f, left(ctx))
	})
}

// writeState writes a state to an empty file and rewinds it.
func writeState(f *os.File, v *state.View) (size int64, err error) {
	if size, err = v.WriteTo(f); err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		return 0, fmt.Errorf("restore snapshot: %w", err)
	}
	return size, nil
}

// ownSnapshot refuses another cluster's. A node that is in no cluster takes any:
// that is how a lost cluster begins again.
func (n *Node) ownSnapshot(saved *state.State) error {
	mine, ok := n.State().Cluster()
	if c, _ := saved.Cluster(); ok && c.ID != mine.ID {
		return bulkhead.E(bulkhead.Conflict, "foreign_snapshot", "The snapshot is of another cluster.")
	}
	return nil
}

// readBackup checks a saved snapshot whole and answers the state in it.
func readBackup(r io.Reader) (SnapshotInfo, *state.State, error) {
	h, err := readBackupHeader(r)
	if err != nil {
		return SnapshotInfo{}, nil, err
	}
	sum := sha256.New()
	counted := &countingReader{r: io.TeeReader(io.LimitReader(r, h.size), sum)}
	st := state.New()
	if err := st.Restore(counted); err != nil {
		return SnapshotInfo{}, nil, err
	}
	if _, err := io.Copy(io.Discard, counted); err != nil {
		return SnapshotInfo{}, nil, fmt.Errorf("read state: %w", err)
	}
	if counted.n != h.size || [32]byte(sum.Sum(nil)) != h.sum {
		return SnapshotInfo{}, nil, errors.New("the state is not the one that was saved")
	}
	if n, err := io.ReadFull(r, make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
		return SnapshotInfo{}, nil, errors.New("data after the end")
	}
	c, _ := st.Cluster()
	if view := st.View(); c.ID != h.cluster || view.Index() != h.index {
		return SnapshotInfo{}, nil, errors.New("the header does not belong to the state")
	}
	return SnapshotInfo{
		ClusterID: h.cluster, Index: h.index, Time: time.UnixMilli(h.at).UTC(), Size: h.size, SHA256: h.sum,
		Tenants: len(st.Tenants()), Keys: st.View().KeyCount(),
	}, st, nil
}

type countingReader struct {
	r io.Reader
	n int64
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

// contextWriter stops a long write when nobody waits for it any more.
type contextWriter struct {
	ctx context.Context
	w   io.Writer
}

func (c contextWriter) Write(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.w.Write(p)
}
