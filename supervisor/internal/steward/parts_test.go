package steward

import (
	"github.com/bulkhead-ai/bulkhead/cluster"
	"github.com/bulkhead-ai/bulkhead/cluster/lease"
	"github.com/bulkhead-ai/bulkhead/cluster/transport"
)

// The parts that the fleet of these tests stands for.
var (
	_ Raft                  = (*cluster.Node)(nil)
	_ Peers                 = (*transport.Transport)(nil)
	_ lease.Deadline        = (*lease.Page)(nil)
	_ transport.JoinHandler = (*Steward)(nil).Admit
)
