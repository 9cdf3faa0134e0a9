package admintest

import (
	"context"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin/wire"
)

// Fleet is a cluster of three nodes without any: it answers a status that the
// test sets and notes what was asked of it. It stands in for admin.Fleet,
// admin.Everywhere and admin.Snapshots.
type Fleet struct {
	mu       sync.Mutex
	status   wire.ClusterStatus
	calls    []string
	fail     error
	snapshot string
	onStatus func(*wire.ClusterStatus)
}

// NewFleet has the live voters n1, which leads, n2 and n3.
func NewFleet() *Fleet {
	f := &Fleet{snapshot: "snapshot"}
	f.status = wire.ClusterStatus{ID: "c1", Node: "n1", Leader: "n1", Term: 3, Index: 40, FailureTolerance: 1}
	for _, id := range []string{"n1", "n2", "n3"} {
		f.status.Nodes = append(f.status.Nodes, wire.NodeStatus{
			ID: id, Addr: id + ".example:8082", Voter: true, Leader: id == "n1", Alive: true, LeaseLeftMS: 2500, LastContactMS: 120, Tenants: 2, Version: "test",
		})
	}
	return f
}

// Change lets the test change the status.
func (f *Fleet) Change(change func(*wire.ClusterStatus)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(&f.status)
}

// OnStatus lets the test change the status after each time that it was asked for.
func (f *Fleet) OnStatus(change func(*wire.ClusterStatus)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.onStatus = change
}

// Fail makes every later call fail with err; nil ends it.
func (f *Fleet) Fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fail = err
}

// Calls answers what was asked since the last call, status questions left out.
func (f *Fleet) Calls() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := f.calls
	f.calls = nil
	return out
}

func (f *Fleet) called(format string, args ...any) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, fmt.Sprintf(format, args...))
	return f.fail
}

// Status implements admin.Fleet.
func (f *Fleet) Status(context.Context) (wire.ClusterStatus, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	st := f.status
	st.Nodes = slices.Clone(st.Nodes)
	if f.onStatus != nil {
		f.onStatus(&f.status)
	}
	return st, f.fail
}

// NewToken implements admin.Fleet.
func (f *Fleet) NewToken(_ context.Context, op string, ttl time.Duration) (wire.JoinToken, error) {
	err := f.called("token %s", ttl)
	return wire.JoinToken{ID: "t1", Token: "bh1.pin.t1.secret", ExpiresAt: time.Unix(1_800_000_000, 0).UTC()}, err
}

// SetDraining implements admin.Fleet.
func (f *Fleet) SetDraining(_ context.Context, _, node string, draining bool) error {
	if err := f.called("draining %s %t", node, draining); err != nil {
		return err
	}
	f.Change(func(st *wire.ClusterStatus) {
		for i := range st.Nodes {
			if st.Nodes[i].ID == node {
				st.Nodes[i].Draining = draining
			}
		}
	})
	return nil
}

// Transfer implements admin.Fleet.
func (f *Fleet) Transfer(_ context.Context, node string) (string, error) {
	if node == "" {
		node = "n2"
	}
	return node, f.called("transfer %s", node)
}

// Remove implements admin.Fleet.
func (f *Fleet) Remove(_ context.Context, _, node string, acceptLoss bool) error {
	if acceptLoss {
		return f.called("remove %s accepting loss", node)
	}
	return f.called("remove %s", node)
}

// Everywhere implements admin.Everywhere.
func (f *Fleet) Everywhere(_ context.Context, index uint64) error {
	return f.called("everywhere %d", index)
}

// SaveSnapshot implements admin.Snapshots.
func (f *Fleet) SaveSnapshot(_ context.Context, w io.Writer) error {
	io.WriteString(w, f.snapshot)
	return f.called("save")
}

// RestoreSnapshot implements admin.Snapshots.
func (f *Fleet) RestoreSnapshot(_ context.Context, r io.Reader) error {
	raw, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	if string(raw) != f.snapshot {
		return bulkhead.E(bulkhead.InvalidRequest, "invalid_snapshot", "The file is no whole snapshot.")
	}
	return f.called("restore")
}
