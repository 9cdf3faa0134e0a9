package steward

import (
	"context"
	"math"
	"slices"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"github.com/bulkhead-ai/bulkhead/cluster/placement"
	"github.com/bulkhead-ai/bulkhead/cluster/state"
	"go.uber.org/zap"
)

// upkeep is all that can wait a few seconds: who votes, who keeps copies, marks,
// the feature level.
type upkeep struct {
	*leadership
	looked time.Duration // when missing copies were last looked for
	marked time.Duration // when marks were last proposed
	handed bool          // leadership was offered to others because this node is drained or full
	said   map[string]string
}

func newUpkeep(l *leadership) *upkeep {
	return &upkeep{leadership: l, marked: l.cfg.Clock.Now(), said: map[string]string{}}
}

func (u *upkeep) run(ctx context.Context) {
	every(ctx, upkeepEvery, func() bool {
		now := u.cfg.Clock.Now()
		view := u.raft.State().View()
		u.members(ctx, view)
		u.level(ctx, view)
		u.repair(ctx, view, now)
		u.mark(ctx, view, now)
		u.stepAside(ctx, view, now)
		return true
	})
}

// members makes Raft's members those of the state. A new one votes after it has
// kept up for a while.
func (u *upkeep) members(ctx context.Context, view *state.View) {
	list, err := u.raft.Members()
	if err != nil {
		u.say("members", err)
		return
	}
	known := ids(view.Nodes())
	for _, id := range known {
		i := slices.IndexFunc(list, func(m cluster.Member) bool { return m.ID == id })
		switch {
		case i < 0:
			u.change(ctx, "take in "+id, func(ctx context.Context) error { return u.raft.AddNonvoter(ctx, id) })
		case !list[i].Voter && list[i].Stable:
			u.change(ctx, "give a vote to "+id, func(ctx context.Context) error { return u.raft.Promote(ctx, id) })
		}
	}
	for _, m := range list {
		if !slices.Contains(known, m.ID) {
			u.change(ctx, "remove "+m.ID, func(ctx context.Context) error { return u.raft.RemoveMember(ctx, m.ID) })
			if m.ID != u.cfg.Node {
				u.cfg.Peers.Disconnect(m.ID)
			}
		}
	}
}

func (u *upkeep) change(ctx context.Context, what string, f func(context.Context) error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	err := f(ctx)
	if err == nil {
		u.cfg.Log.Info("membership of the cluster changed", zap.String("change", what))
	}
	u.say(what, err)
}

// say logs what goes wrong, once as long as it stays the same.
func (u *upkeep) say(what string, err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text != "" && u.said[what] != text {
		u.cfg.Log.Warn("cluster upkeep", zap.String("step", what), zap.Error(err))
	}
	if u.said[what] = text; text == "" {
		delete(u.said, what)
	}
}

func (u *upkeep) propose(ctx context.Context, what string, cmd command.Command) error {
	ctx, cancel := context.WithTimeout(ctx, proposeFor)
	defer cancel()
	_, err := u.raft.ProposeAsLeader(ctx, cmd)
	u.say(what, err)
	return err
}

// level raises the feature level when the last node runs a newer build.
func (u *upkeep) level(ctx context.Context, view *state.View) {
	c, ok := view.Cluster()
	nodes := view.Nodes()
	if !ok || len(nodes) == 0 {
		return
	}
	lowest := uint32(math.MaxUint32)
	for _, n := range nodes {
		lowest = min(lowest, n.Level)
	}
	if lowest > c.Level {
		_ = u.propose(ctx, "raise the feature level", &command.SetLevel{Level: lowest}) // tried again
	}
}

// repair appoints learners where copies of journals are missing. The owner feeds
// them and makes them voters.
func (u *upkeep) repair(ctx context.Context, view *state.View, now time.Duration) {
	if now-u.looked < repairEvery {
		return
	}
	u.looked = now
	repairs := placement.Repairs(u.facts(view, now))
	for _, r := range repairs[:min(len(repairs), maxRepairs)] {
		cmd := &command.SetReplicas{Tenant: r.Tenant, Epoch: r.Epoch, Was: r.Voters, Voters: r.Voters, Learners: r.Learners}
		if err := u.propose(ctx, "repair the copies of "+string(r.Tenant), cmd); err != nil {
			if bulkhead.AsError(err).Kind == bulkhead.Conflict {
				continue // it has just changed: next time
			}
			return
		}
		u.cfg.Log.Info("copies of a journal are missing; learners appointed",
			zap.String("tenant", string(r.Tenant)), zap.Any("learners", r.Learners))
	}
}

// mark notes how far every node surely holds the log: what it has applied was
// committed, so no leader change takes it back, and a disk with less of it is an
// old one. A node that says goodbye is marked at once: its disk may be copied now.
func (u *upkeep) mark(ctx context.Context, view *state.View, now time.Duration) {
	if now-u.marked < markEvery && !u.goodbye.Swap(false) {
		return
	}
	u.marked = now
	marks := map[string]uint64{}
	for _, n := range view.Nodes() {
		r, ok := u.reports.node(n.ID)
		if at := min(r.Applied, r.Last, view.Index()); ok && r.Boot == n.Boot && at > n.RaftIndex {
			marks[n.ID] = at
		}
	}
	if len(marks) > 0 {
		_ = u.propose(ctx, "mark the nodes", &command.MarkNodes{RaftIndex: marks}) // tried again
	}
}

// stepAside hands the leadership over when this node is drained, as it is about to
// be stopped, or when its disk is full: the log has little room left.
func (u *upkeep) stepAside(ctx context.Context, view *state.View, now time.Duration) {
	self, ok := view.Node(u.cfg.Node)
	drained := self.Draining && len(view.AssignedTo(self.ID)) == 0
	if !ok || !drained && !u.full(self.ID) {
		u.handed = false
		return
	}
	if u.handed || !u.successor(view, now) {
		return
	}
	u.handed = true
	u.handOver(ctx)
}

// successor reports whether somebody can lead who has not the same reason not to.
func (u *upkeep) successor(view *state.View, now time.Duration) bool {
	members, err := u.raft.Members()
	if err != nil {
		return false
	}
	return slices.ContainsFunc(members, func(m cluster.Member) bool {
		n, ok := view.Node(m.ID)
		return ok && m.Voter && m.ID != u.cfg.Node && !n.Draining && !u.full(m.ID) && !u.silent(m.ID, now)
	})
}
