package cli

import (
	"context"
	"io"

	"github.com/bulkhead-ai/bulkhead/configs"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin/wire"
)

// ClusterOps is what a node's own machine does to its data directory while the
// node is stopped. Errors are shown to the operator as they are; each method
// refuses, and changes nothing, when a node runs on the directory or the
// directory is in a state that does not fit.
type ClusterOps interface {
	// Init makes the node the first one of a new cluster; what a node that was
	// alone holds is kept.
	Init(ctx context.Context, cfg configs.Server) (Founded, error)
	// Join asks a member to take the node in and stores what it needs to start.
	// Peers are cluster addresses beside those in the token.
	Join(ctx context.Context, cfg configs.Server, token string, peers []string) error
	// Recover makes the given voters, this node among them, the whole cluster: for
	// a majority that is lost for good. A voter is ID or ID=HOST:PORT.
	Recover(ctx context.Context, cfg configs.Server, voters []string) error
	// InspectSnapshot verifies a snapshot's checksum and answers what it holds.
	InspectSnapshot(r io.Reader) (wire.SnapshotInfo, error)
}

// Founded is a new cluster with its first node.
type Founded struct {
	ID   string `json:"id"`
	Node string `json:"node"`
	Addr string `json:"addr"` // cluster port
}
