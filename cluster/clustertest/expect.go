package clustertest

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/bulkhead-ai/bulkhead"
)

func (s *story) expect(a []string) error {
	switch line := strings.Join(a, " "); {
	case a[0] == "leader":
		return s.eventually(func() error { return s.expectLeader(a[1:]) })
	case strings.HasPrefix(line, "no leader ") && len(a) == 3:
		return s.eventually(func() error {
			if id, _ := s.Node(a[2]).Leader(); id != "" {
				return fmt.Errorf("%s knows %s", a[2], id)
			}
			return nil
		})
	case line == "same term":
		return s.expectSameTerm()
	case a[0] == "down" && len(a) == 2:
		return s.eventually(func() error {
			if s.Failed(a[1]) == nil || s.Node(a[1]) != nil {
				return fmt.Errorf("%s is up", a[1])
			}
			s.logf("          %s: %v", a[1], s.Failed(a[1]))
			return nil
		})
	case a[0] == "voters":
		return s.expectVoters(a[1:])
	case a[0] == "revoked" && len(a) == 3:
		return s.eventually(func() error { return s.expectKey(a[1], a[2], true) })
	case a[0] == "key" && len(a) == 4 && a[3] == "active":
		return s.eventually(func() error { return s.expectKey(a[1], a[2], false) })
	case line == "equal":
		return s.eventually(s.equal)
	case a[0] == "tolerance" && len(a) == 3:
		return s.eventually(func() error { return s.expectTolerance(a[1], a[2]) })
	}
	return fmt.Errorf("nothing known to expect")
}

func (s *story) expectLeader(a []string) error {
	leader := s.Leader()
	ok := leader != ""
	switch {
	case len(a) == 1 && a[0] == "same":
		ok = leader == s.marked.leader
	case len(a) == 1:
		ok = leader == a[0]
	case len(a) == 2 && a[0] == "not":
		ok = leader != "" && leader != a[1]
	}
	if !ok {
		return fmt.Errorf("leader %q", leader)
	}
	return nil
}

func (s *story) expectSameTerm() error {
	for id, term := range s.marked.terms {
		n := s.Node(id)
		if n == nil {
			continue
		}
		if now := n.Status().Term; now != term {
			return fmt.Errorf("%s went from term %d to %d", id, term, now)
		}
	}
	return nil
}

func (s *story) expectVoters(want []string) error {
	want = slices.Sorted(slices.Values(want))
	return s.eventually(func() error {
		for _, id := range s.Up() {
			members, err := s.Node(id).Members()
			if err != nil {
				return err
			}
			var voters []string
			for _, m := range members {
				if m.Voter {
					voters = append(voters, m.ID)
				}
			}
			if slices.Sort(voters); slices.Contains(want, id) && !slices.Equal(voters, want) {
				return fmt.Errorf("%s knows the voters %v", id, voters)
			}
		}
		return nil
	})
}

func (s *story) expectKey(id, key string, revoked bool) error {
	n := s.Node(id)
	if n == nil {
		return fmt.Errorf("%s is down", id)
	}
	k, ok := n.State().Key(bulkhead.KeyID(key))
	if !ok || (k.RevokedAt != 0) != revoked {
		return fmt.Errorf("%s has the key: %v, revoked at %d", id, ok, k.RevokedAt)
	}
	return nil
}

func (s *story) expectTolerance(id, want string) error {
	n := s.Node(id)
	if n == nil {
		return fmt.Errorf("%s is down", id)
	}
	if got := strconv.Itoa(n.Status().FailureTolerance); got != want {
		return fmt.Errorf("failure tolerance %s", got)
	}
	return nil
}

// equal compares the states of the nodes that run.
func (s *story) equal() error {
	var first string
	var sum [32]byte
	for _, id := range s.Up() {
		got, err := s.Node(id).State().View().Sum()
		switch {
		case err != nil:
			return err
		case first == "":
			first, sum = id, got
		case got != sum:
			return fmt.Errorf("%s at index %d and %s at index %d differ",
				first, s.Node(first).State().Index(), id, s.Node(id).State().Index())
		}
	}
	return nil
}
