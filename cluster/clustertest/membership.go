package clustertest

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"github.com/bulkhead-ai/bulkhead/cluster"
)

// patience bounds what is waited for, in the bubble's time.
const patience = 20 * time.Second

// eventually waits until check answers nil.
func (s *story) eventually(check func() error) error {
	for end := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		err := check()
		if err == nil || time.Now().After(end) {
			return err
		}
	}
}

// form makes voters of all nodes.
func (s *story) form(ids []string) error {
	if err := s.Start(ids[0], false); err != nil {
		return err
	}
	if err := s.eventually(s.someLeader); err != nil {
		return err
	}
	for _, id := range ids[1:] {
		if err := s.Start(id, true); err != nil {
			return err
		}
		if err := s.onLeader(func(ctx context.Context, l *cluster.Node) error { return l.AddNonvoter(ctx, id) }); err != nil {
			return err
		}
	}
	for _, id := range ids[1:] {
		err := s.eventually(func() error {
			return s.onLeader(func(ctx context.Context, l *cluster.Node) error { return l.Promote(ctx, id) })
		})
		if err != nil {
			return err
		}
	}
	return s.expectVoters(ids)
}

func (s *story) someLeader() error {
	if s.Leader() == "" {
		return fmt.Errorf("nobody leads")
	}
	return nil
}

func (s *story) onLeader(do func(context.Context, *cluster.Node) error) error {
	leader := s.Node(s.Leader())
	if leader == nil {
		return fmt.Errorf("nobody leads")
	}
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	return do(ctx, leader)
}

func (s *story) memberVerbs() map[string]verb {
	change := func(do func(l *cluster.Node, ctx context.Context, id string) error) verb {
		return verb{1, func(a []string) error {
			return s.onLeader(func(ctx context.Context, l *cluster.Node) error { return do(l, ctx, a[0]) })
		}}
	}
	return map[string]verb{
		"add":     change((*cluster.Node).AddNonvoter),
		"promote": change((*cluster.Node).Promote),
		"demote":  change((*cluster.Node).Demote),
		"remove":  change((*cluster.Node).RemoveMember),
		"transfer": {1, func(a []string) error {
			n := s.Node(a[0])
			if n == nil {
				return fmt.Errorf("%s is down", a[0])
			}
			return n.TransferLeadership(s.ctx)
		}},
		"save":    {2, s.save},
		"restore": {2, s.restore},
		"damage": {1, func(a []string) error {
			s.files[a[0]] = bytes.Clone(s.files[a[0]])
			s.files[a[0]][len(s.files[a[0]])/2] ^= 1
			return nil
		}},
		"recover": {2, func(a []string) error { return cluster.Recover(s.Dir(a[0]), a[0], a[1:]) }},
	}
}

func (s *story) save(a []string) error {
	n := s.Node(a[0])
	if n == nil {
		return fmt.Errorf("%s is down", a[0])
	}
	var b bytes.Buffer
	if err := n.SaveSnapshot(s.ctx, &b); err != nil {
		return err
	}
	s.files[a[1]] = b.Bytes()
	_, err := cluster.InspectSnapshot(bytes.NewReader(b.Bytes()))
	return err
}

func (s *story) restore(a []string) error {
	n := s.Node(a[0])
	if n == nil {
		return fmt.Errorf("%s is down", a[0])
	}
	if err := n.RestoreSnapshot(s.ctx, bytes.NewReader(s.files[a[1]])); err != nil {
		return err
	}
	s.ledger.restored() // what was acknowledged since is gone, as it should be
	return nil
}
