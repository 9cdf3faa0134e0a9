package daemon

import (
	"context"
	"encoding/hex"
	"io"

	"github.com/bulkhead-ai/bulkhead/cluster"
	"github.com/bulkhead-ai/bulkhead/configs"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin/wire"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/cli"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/member"
)

// Ops is cli.ClusterOps: what is done to a node that does not run.
type Ops struct{ Version string }

var _ cli.ClusterOps = Ops{}

// Init implements cli.ClusterOps.
func (o Ops) Init(ctx context.Context, cfg configs.Server) (cli.Founded, error) {
	id, err := o.setup(cfg).Init(ctx)
	return cli.Founded{ID: id, Node: cfg.NodeID, Addr: cfg.Cluster.Advertise}, err
}

// Join implements cli.ClusterOps.
func (o Ops) Join(ctx context.Context, cfg configs.Server, token string, peers []string) error {
	return o.setup(cfg).Join(ctx, token, peers)
}

// Recover implements cli.ClusterOps.
func (o Ops) Recover(_ context.Context, cfg configs.Server, voters []string) error {
	return o.setup(cfg).Recover(voters)
}

func (o Ops) setup(cfg configs.Server) member.Setup {
	return member.Setup{Config: cfg, Version: o.Version}
}

// InspectSnapshot implements cli.ClusterOps.
func (o Ops) InspectSnapshot(r io.Reader) (wire.SnapshotInfo, error) {
	s, err := cluster.InspectSnapshot(r)
	if err != nil {
		return wire.SnapshotInfo{}, err
	}
	return wire.SnapshotInfo{
		Cluster: s.ClusterID, Index: s.Index, Size: s.Size, SHA256: hex.EncodeToString(s.SHA256[:]),
		Tenants: s.Tenants, Keys: s.Keys, TakenAt: s.Time,
	}, nil
}
