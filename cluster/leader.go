package cluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/hashicorp/raft"
)

// Leader answers who leads as far as this node knows ("" = nobody), and whether
// it is this node. A leader that was cut off learns of it within its lease of a
// quarter of a second (times RaftMultiplier).
func (n *Node) Leader() (id string, self bool) {
	_, leader := n.raft.LeaderWithID()
	id = string(leader)
	return id, id == n.cfg.NodeID && n.raft.State() == raft.Leader
}

// LeaderChanged answers a channel that holds a token whenever Leader may answer
// something else since the last token was taken. stop ends the watch; the
// channel is never closed.
func (n *Node) LeaderChanged() (changed <-chan struct{}, stop func()) { return n.leaders.add() }

// followLeader passes on what raft observes.
func (n *Node) followLeader() {
	seen := make(chan raft.Observation, 64) // if it is full, what is in it wakes everybody too
	o := raft.NewObserver(seen, false, func(o *raft.Observation) bool {
		_, ok := o.Data.(raft.LeaderObservation)
		return ok
	})
	n.raft.RegisterObserver(o)
	defer n.raft.DeregisterObserver(o)
	last, _ := n.Leader()
	if last != "" {
		n.terms.Add(1)
	}
	n.leaders.notify()
	for {
		select {
		case o := <-seen:
			if id := string(o.Data.(raft.LeaderObservation).LeaderID); id != "" && id != last {
				last = id
				n.terms.Add(1)
			}
			n.leaders.notify()
		case <-n.done:
			return
		}
	}
}

// Barrier returns once this node, as the leader, has applied everything that
// was committed before the call. On another node: unavailable.
func (n *Node) Barrier(ctx context.Context) error {
	ctx, cancel := n.requested(ctx)
	defer cancel()
	return n.await(ctx, "barrier", func() error { return n.raft.Barrier(left(ctx)).Error() })
}

// TransferLeadership makes the voter that keeps up best the leader, in some
// milliseconds; it is for a leader before a planned end. Errors: unavailable if
// this node does not lead or no other voter is alive; otherwise the leadership
// may have moved or not.
func (n *Node) TransferLeadership(ctx context.Context) error { return n.transferTo(ctx, n.successors) }

// TransferLeadershipTo is TransferLeadership to one voter, who must be alive.
func (n *Node) TransferLeadershipTo(ctx context.Context, id string) error {
	return n.transferTo(ctx, func() []string {
		if slices.Contains(n.successors(), id) {
			return []string{id}
		}
		return nil
	})
}

func (n *Node) transferTo(ctx context.Context, targets func() []string) error {
	ctx, cancel := n.requested(ctx)
	defer cancel()
	if leader, self := n.Leader(); !self {
		return notLeading(leader)
	}
	ids := targets()
	if len(ids) == 0 {
		return unavailable(errors.New("no voter is alive that could lead"))
	}
	var err error
	for _, id := range ids[:min(len(ids), 3)] {
		err = n.await(ctx, "transfer leadership to "+id, func() error {
			return n.raft.LeadershipTransferToServer(raft.ServerID(id), raft.ServerAddress(id)).Error()
		})
		if err == nil || ctx.Err() != nil {
			return err
		}
		if _, self := n.Leader(); !self {
			return nil
		}
	}
	return err
}

// successors lists the voters that are alive, those that keep up best first.
func (n *Node) successors() []string {
	type successor struct {
		id   string
		last uint64
	}
	var all []successor
	for _, s := range n.raft.GetConfiguration().Configuration().Servers {
		id := string(s.ID)
		if p, alive := n.heard.of(id); alive && s.Suffrage == raft.Voter && id != n.cfg.NodeID {
			all = append(all, successor{id, p.last})
		}
	}
	slices.SortStableFunc(all, func(a, b successor) int { return cmp.Compare(b.last, a.last) })
	ids := make([]string, len(all))
	for i, s := range all {
		ids[i] = s.id
	}
	return ids
}

// otherVoters counts the voters besides this node.
func (n *Node) otherVoters() (count int) {
	for _, s := range n.raft.GetConfiguration().Configuration().Servers {
		if s.Suffrage == raft.Voter && string(s.ID) != n.cfg.NodeID {
			count++
		}
	}
	return count
}

func notLeading(leader string) error {
	if leader == "" {
		return unavailable(errors.New("the cluster has no leader"))
	}
	return unavailable(fmt.Errorf("node %s leads", leader))
}
