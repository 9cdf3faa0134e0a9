package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin/wire"

	"go.uber.org/zap"
)

// serviceSnapshot takes a snapshot to the leader, the only one that can restore
// it: the file, the end of it, and back what became of it.
const serviceSnapshot = "snapshot"

// backups is admin.Snapshots on a member: a file holds everything that was
// acknowledged by any node, as long as somebody leads, and any node takes one
// back.
type backups struct{ n *Node }

func (n *Node) snapshots() admin.Snapshots {
	if n.member == nil {
		return n.cluster
	}
	return &backups{n}
}

// SaveSnapshot implements admin.Snapshots.
func (b *backups) SaveSnapshot(ctx context.Context, w io.Writer) error {
	st := b.n.member.steward.Status(ctx)
	if !slices.ContainsFunc(st.Nodes, func(n wire.NodeStatus) bool { return n.Alive }) { // better than none
		b.n.log.Warn("nobody leads the cluster: the backup holds what this node knows", zap.Uint64("index", st.Index))
	}
	if err := b.n.cluster.WaitApplied(ctx, st.Index); err != nil {
		return err
	}
	return b.n.cluster.SaveSnapshot(ctx, w)
}

// RestoreSnapshot implements admin.Snapshots. On return this node has the restored
// state, and whoever has applied its index has it too.
func (b *backups) RestoreSnapshot(ctx context.Context, r io.Reader) error {
	if err := b.restore(ctx, r); err != nil {
		return err
	}
	// The restored state's index is an old one. A command on top of it has one that
	// nobody reaches without it.
	if _, err := b.n.cluster.Propose(ctx, &command.MarkNodes{}); err != nil {
		return bulkhead.E(bulkhead.Unavailable, "restore_unconfirmed", "The snapshot is restored, but this node has not seen it yet.").With(err)
	}
	return nil
}

func (b *backups) restore(ctx context.Context, r io.Reader) error {
	leader, self := b.n.cluster.Leader()
	switch {
	case self:
		return b.n.cluster.RestoreSnapshot(ctx, r)
	case leader == "":
		return bulkhead.E(bulkhead.Unavailable, "no_leader", "The cluster has no leader now. Try again.")
	}
	conn, err := b.n.member.transport.Open(ctx, leader, serviceSnapshot)
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	sent := make(chan error, 1)
	go func() { sent <- send(conn, r) }()
	var v verdict // may come before all was sent: of what is no snapshot the leader does not read the rest
	err = json.NewDecoder(io.LimitReader(conn, 64<<10)).Decode(&v)
	conn.Close()
	if sendErr := <-sent; err != nil {
		err = errors.Join(sendErr, err)
		return bulkhead.E(bulkhead.Unavailable, "restore_unknown", "It is not known whether the snapshot was restored. Look at the cluster before trying again.").With(err)
	}
	if v.Code != "" {
		return bulkhead.E(v.Kind, v.Code, v.Message)
	}
	return nil
}

// send sends a file and its end. What was cut off does not look like a whole one.
func send(conn net.Conn, file io.Reader) error {
	if _, err := io.Copy(conn, file); err != nil {
		conn.Close()
		return fmt.Errorf("send the snapshot: %w", err)
	}
	half, ok := conn.(interface{ CloseWrite() error })
	if !ok {
		conn.Close()
		return fmt.Errorf("internal error: %T cannot be closed half", conn)
	}
	return half.CloseWrite()
}

// verdict is a refusal on its way back; without a code it is none.
type verdict struct {
	Kind    bulkhead.Kind `json:"kind"`
	Code    string        `json:"code"`
	Message string        `json:"message"`
}

// takeSnapshot is the leader's side.
func (n *Node) takeSnapshot(ctx context.Context, peer string, conn net.Conn) {
	defer conn.Close()
	n.log.Warn("a snapshot is restored", zap.String("through", peer))
	var v verdict
	if err := n.cluster.RestoreSnapshot(ctx, conn); err != nil {
		n.log.Error("restore snapshot", zap.Error(err))
		v = verdict{bulkhead.Unavailable, "restore_unknown", "It is not known whether the snapshot was restored."}
		var refused *bulkhead.Error
		if errors.As(err, &refused) {
			v = verdict{refused.Kind, refused.Code, refused.Message}
		}
	}
	if err := json.NewEncoder(conn).Encode(v); err != nil {
		n.log.Warn("answer who restored a snapshot", zap.Error(err))
	}
}
