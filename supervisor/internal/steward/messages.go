package steward

import (
	"context"
	"encoding/json"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"github.com/bulkhead-ai/bulkhead/cluster/placement"
)

// The calls between nodes. All but releaseTenant go to the leader.
const (
	callRenew         = "lease/renew"
	callRelease       = "lease/release"
	callExpired       = "cluster/expired"
	callStatus        = "cluster/status"
	callSign          = "node/sign"
	callStart         = "node/start"
	callReleaseTenant = "tenant/release"
)

// renewal asks for the lease and tells how the node does.
type renewal struct {
	Boot     string        `json:"boot"`
	Receiver string        `json:"receiver"`
	Held     bool          `json:"held"`       // the node holds its lease while it asks
	Applied  uint64        `json:"applied"`    // the state is there, and the log on the disk reaches as far
	Last     uint64        `json:"last_index"` // last entry on the disk
	FsyncP99 time.Duration `json:"fsync_p99"`
	DiskFull bool          `json:"disk_full,omitempty"`

	Leadership string         `json:"leadership,omitempty"` // to which the earlier reports were made
	Reports    []TenantReport `json:"reports,omitempty"`    // what changed since then
}

// grant is the answer to a renewal that is granted.
type grant struct {
	Leadership string `json:"leadership"`
	Index      uint64 `json:"index"` // who had no lease must have applied this before it serves again
}

// TenantReport is a node's word on a tenant of which it runs the worker or keeps
// a copy.
type TenantReport struct {
	Tenant   bulkhead.TenantID   `json:"tenant"`
	Running  bool                `json:"running,omitempty"`   // the worker lives
	InFlight int                 `json:"in_flight,omitempty"` // requests
	Copy     *placement.Position `json:"copy,omitempty"`      // of its journal on this node
	Mending  bool                `json:"mending,omitempty"`   // the copy does not count until it is repaired
}

func (r TenantReport) equal(o TenantReport) bool {
	if (r.Copy == nil) != (o.Copy == nil) || r.Copy != nil && *r.Copy != *o.Copy {
		return false
	}
	return r.Tenant == o.Tenant && r.Running == o.Running && r.Mending == o.Mending && r.InFlight == o.InFlight
}

type release struct {
	Boot string `json:"boot"`
}

type expiredQuestion struct {
	Node string `json:"node"`
}

type expiredAnswer struct {
	Gone bool          `json:"gone"`
	Wait time.Duration `json:"wait"` // until it is gone, unless it renews
}

type signRequest struct {
	CSR []byte `json:"csr"` // DER
}

type signed struct {
	Chain []byte `json:"chain"` // PEM: the certificate, then the root
}

type releaseTenant struct {
	Tenant  bulkhead.TenantID `json:"tenant"`
	To      string            `json:"to"`
	Timeout time.Duration     `json:"timeout"`
}

// nothing is the answer of a call that has none.
type nothing struct{}

type handler = func(ctx context.Context, peer string, in json.RawMessage) (any, error)

// callLeader calls whoever leads, perhaps this very node.
func (s *Steward) callLeader(ctx context.Context, method string, in, out any) error {
	id, _ := s.raft.Leader()
	if id == "" {
		return noLeader()
	}
	return s.cfg.Peers.Call(ctx, id, method, in, out)
}

func noLeader() error {
	e := bulkhead.E(bulkhead.Unavailable, "no_leader", "The cluster has no leader now.")
	e.RetryAfter = time.Second
	return e
}

func notLeading() error {
	e := bulkhead.E(bulkhead.Unavailable, "not_leader", "This node does not lead the cluster.")
	e.RetryAfter = time.Second
	return e
}

// handles makes a handler of a function with typed input.
func handles[T any](f func(ctx context.Context, peer string, in T) (any, error)) handler {
	return func(ctx context.Context, peer string, raw json.RawMessage) (any, error) {
		var in T
		if err := json.Unmarshal(raw, &in); err != nil {
			return nil, bulkhead.E(bulkhead.InvalidRequest, "invalid_call", "The call cannot be decoded.").With(err)
		}
		return f(ctx, peer, in)
	}
}

// startRequest registers a start of the node that sends it.
type startRequest struct {
	Start   command.StartNode `json:"start"`
	Earlier []string          `json:"earlier,omitempty"` // Boot of starts that the node's disk knows of
}
