package cluster

import (
	"context"
	"fmt"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/hashicorp/raft"
)

// Member is a member of the Raft group. What follows Voter only the leader
// knows; elsewhere Heard is negative.
type Member struct {
	ID        string        `json:"id"`
	Voter     bool          `json:"voter"`
	Alive     bool          `json:"alive"`      // answered within two heartbeat timeouts
	Heard     time.Duration `json:"heard"`      // since its last answer; 0 for the leader itself, negative: never
	LastIndex uint64        `json:"last_index"` // last entry of its log when it answered
	Lag       uint64        `json:"lag"`        // entries of the leader's log that it lacked then
	Stable    bool          `json:"stable"`     // alive and keeping up for Config.StableFor: may become a voter
}

// Members lists the members in the order of the configuration, which may not be
// committed yet.
func (n *Node) Members() ([]Member, error) {
	if err := n.stopped(); err != nil {
		return nil, err
	}
	_, self := n.Leader()
	var out []Member
	for _, s := range n.raft.GetConfiguration().Configuration().Servers {
		m := Member{ID: string(s.ID), Voter: s.Suffrage == raft.Voter, Heard: -1}
		if self {
			n.describe(&m)
		}
		out = append(out, m)
	}
	return out, nil
}

// describe fills in what the leader knows.
func (n *Node) describe(m *Member) {
	end := n.raft.LastIndex()
	if m.ID == n.cfg.NodeID {
		m.Alive, m.Stable, m.Heard, m.LastIndex = true, true, 0, end
		return
	}
	p, alive := n.heard.of(m.ID)
	if p.at.IsZero() {
		return
	}
	m.Alive, m.Heard, m.LastIndex = alive, time.Since(p.at), p.last
	if p.last < end {
		m.Lag = end - p.last
	}
	m.Stable = alive && m.Lag < maxLag && time.Since(p.stable) >= n.cfg.StableFor
}

// AddNonvoter takes a node in: it receives the log and does not vote. Adding a
// member again changes nothing. Errors of this and the following methods:
// unavailable where this node does not lead, *bulkhead.Error where the change is
// refused, ErrUnknownOutcome.
func (n *Node) AddNonvoter(ctx context.Context, id string) error {
	if id == "" || len(id) > maxNodeID {
		return bulkhead.E(bulkhead.InvalidRequest, "invalid_node", "A node id has 1 to 128 bytes.")
	}
	return n.reshape(ctx, id, func(m *Member, timeout time.Duration) raft.Future {
		if m != nil {
			return nil
		}
		return n.raft.AddNonvoter(raft.ServerID(id), raft.ServerAddress(id), 0, timeout)
	})
}

// Promote makes a member a voter. It is refused (conflict, node_not_stable)
// until the member has kept up for Config.StableFor: a voter that lags is no
// help when another fails.
func (n *Node) Promote(ctx context.Context, id string) error {
	return n.reshapeChecked(ctx, id, n.mayVote, func(m *Member, timeout time.Duration) raft.Future {
		if m.Voter {
			return nil
		}
		return n.raft.AddVoter(raft.ServerID(id), raft.ServerAddress(id), 0, timeout)
	})
}

// Demote takes a member's vote away; it goes on receiving the log. It is refused
// as RemoveMember is.
func (n *Node) Demote(ctx context.Context, id string) error {
	return n.reshapeChecked(ctx, id, n.mayLose, func(m *Member, timeout time.Duration) raft.Future {
		if !m.Voter {
			return nil
		}
		return n.raft.DemoteVoter(raft.ServerID(id), 0, timeout)
	})
}

// RemoveMember ends a membership. It is refused (conflict, quorum_at_risk) when
// fewer voters than a quorum would be alive afterwards. A leader that is to
// remove itself hands the leadership over and answers unavailable: its successor
// can. Removing who is no member changes nothing.
func (n *Node) RemoveMember(ctx context.Context, id string) error {
	check := func(all []Member, m *Member) error {
		if m == nil {
			return nil
		}
		return n.mayLose(all, m)
	}
	return n.reshapeWith(ctx, id, check, func(m *Member, timeout time.Duration) raft.Future {
		if m == nil {
			return nil
		}
		return n.raft.RemoveServer(raft.ServerID(id), 0, timeout)
	})
}

type (
	memberCheck  = func(all []Member, m *Member) error
	memberChange = func(m *Member, timeout time.Duration) raft.Future // nil: nothing to do
)

func (n *Node) reshape(ctx context.Context, id string, change memberChange) error {
	return n.reshapeWith(ctx, id, func([]Member, *Member) error { return nil }, change)
}

// reshapeChecked is for changes of a node that must be a member.
func (n *Node) reshapeChecked(ctx context.Context, id string, check memberCheck, change memberChange) error {
	return n.reshapeWith(ctx, id, func(all []Member, m *Member) error {
		if m == nil {
			return bulkhead.E(bulkhead.NotFound, "node_not_found", "The cluster has no such member.")
		}
		return check(all, m)
	}, change)
}

// reshapeWith does one change of the membership at a time, on the leader.
func (n *Node) reshapeWith(ctx context.Context, id string, check memberCheck, change memberChange) error {
	ctx, cancel := n.requested(ctx)
	defer cancel()
	n.members.Lock()
	defer n.members.Unlock()
	all, err := n.Members()
	if err != nil {
		return unavailable(err)
	}
	if leader, self := n.Leader(); !self {
		return notLeading(leader)
	}
	var m *Member
	for i := range all {
		if all[i].ID == id {
			m = &all[i]
		}
	}
	if err := check(all, m); err != nil {
		return err
	}
	return n.await(ctx, "change the membership of "+id, func() error {
		if f := change(m, left(ctx)); f != nil {
			return f.Error()
		}
		return nil
	})
}

func (n *Node) mayVote(_ []Member, m *Member) error {
	if m.Voter || m.Stable {
		return nil
	}
	return bulkhead.E(bulkhead.Conflict, "node_not_stable",
		fmt.Sprintf("The node has not kept up for %s yet; it lacks %d entries.", n.cfg.StableFor, m.Lag))
}

// mayLose keeps a change from leaving fewer live voters than a quorum.
func (n *Node) mayLose(all []Member, m *Member) error {
	if !m.Voter {
		return nil
	}
	voters, alive := 0, 0
	for _, o := range all {
		if o.Voter && o.ID != m.ID {
			voters++
			if o.Alive {
				alive++
			}
		}
	}
	if alive < voters/2+1 {
		return bulkhead.E(bulkhead.Conflict, "quorum_at_risk",
			fmt.Sprintf("Without the node %d of %d voters would be alive, fewer than a quorum.", alive, voters))
	}
	if m.ID == n.cfg.NodeID {
		n.handOver()
		return unavailable(fmt.Errorf("node %s led; its successor can change its membership", m.ID))
	}
	return nil
}
