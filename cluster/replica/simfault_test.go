package replica

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/bulkhead-ai/bulkhead/cluster/command"
)

func (s *sim) fault(n *simNode, x int) error {
	s.faults++
	switch {
	case x < 940:
		if lanes := s.net.ready(); len(lanes) > 0 {
			s.net.spoil(lanes[s.rng.IntN(len(lanes))], s.rng.IntN(3))
		}
	case x < 950:
		m := s.rng.IntN(simNodes)
		s.net.mu.Lock()
		s.net.blocked[n.index][m] = !s.net.blocked[n.index][m]
		s.net.mu.Unlock()
	case x < 956:
		s.net.mu.Lock()
		s.net.blocked = [simNodes][simNodes]bool{}
		s.net.mu.Unlock()
	case x < 964:
		m := s.rng.IntN(simNodes)
		s.net.cut(func(c *simConn) bool { return c.from == n.index && c.to == m })
	case x < 974:
		if len(s.net.old) > 0 {
			s.net.haunt(s.net.old[s.rng.IntN(len(s.net.old))])
		}
	case x < 978:
		s.mu.Lock()
		s.unsure = true
		s.mu.Unlock()
	case x < 985:
		n.kill()
	case x < 992:
		if n.up {
			n.kill()
			n.disk.cut(s.rng)
			s.trace("power cut on %s", n.id)
		}
	case x < 994:
		s.replaceDisk(n)
	case x < 996:
		s.trace("power cut on all")
		for _, n := range s.nodes {
			n.kill()
			n.disk.cut(s.rng)
		}
		for _, n := range s.nodes {
			n.start()
		}
	default:
		for _, n := range s.nodes {
			if !n.up && s.rng.IntN(2) == 0 {
				n.start()
				s.trace("start %s", n.id)
			}
		}
	}
	return nil
}

// replaceDisk wipes a node's disk, or flips a bit of its newest segment, if all
// copies are good: more than that no quorum of two can stand.
func (s *sim) replaceDisk(n *simNode) {
	if s.flipped {
		return
	}
	for _, m := range s.nodes {
		if !m.up || !slices.Contains(s.set.Voters, m.replica()) || len(s.set.Learners) > 0 {
			return
		}
		if b := m.k.books[tenant]; b != nil && b.promise.incomplete {
			return
		}
	}
	old := n.k.Receiver()
	n.kill()
	n.disk.cut(s.rng)
	if s.flips {
		s.flipped = true
		s.flip(n)
		n.start()
		return
	}
	s.trace("wiped %s", n.id)
	noSync := n.disk.noSync
	n.disk = newMemDisk()
	n.disk.noSync = noSync
	if s.mutant == ignoresIdentity {
		dir, _ := n.disk.view().OpenDir("meta", true)
		writeSmall(dir, receiverName, []byte(old))
	}
	n.start()
	if s.mutant == ignoresIdentity {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.set.Learners = []command.Replica{n.replica()}
	for _, w := range s.workers {
		select {
		case w.updates <- s.set:
		default:
		}
	}
}

func (s *sim) flip(n *simNode) {
	dir := n.disk.dirs["journal"]
	if dir == nil {
		return
	}
	names := slices.Sorted(maps.Keys(dir.live))
	for _, name := range slices.Backward(names) {
		if f := dir.live[name]; len(name) > 4 && name[len(name)-4:] == ".seg" {
			var used []int
			for i, b := range f.data {
				if b != 0 {
					used = append(used, i)
				}
			}
			at := used[s.rng.IntN(len(used))]
			f.data[at] ^= 1 << s.rng.IntN(8)
			f.durable[at] = f.data[at]
			s.trace("flipped a bit at %d of %s on %s", at, name, n.id)
			return
		}
	}
}

// finish repairs the world and wants the tenant to be served with all copies
// whole again: safety by refusing everything is no solution.
func (s *sim) finish() error {
	s.mu.Lock()
	s.unsure = false
	s.mu.Unlock()
	s.net.mu.Lock()
	s.net.blocked = [simNodes][simNodes]bool{}
	s.net.mu.Unlock()
	for _, n := range s.nodes {
		if !n.up {
			n.start()
		}
	}
	for range 40 {
		if len(s.workers) == 0 || s.workers[len(s.workers)-1].epoch != s.epoch {
			s.assign(s.nodes[s.rng.IntN(simNodes)])
		}
		for range 400 {
			if err := s.settle(); err != nil {
				return err
			}
			lanes := s.net.ready()
			if len(lanes) == 0 {
				time.Sleep(200 * time.Millisecond)
				continue
			}
			for _, l := range lanes {
				s.net.deliver(l)
			}
			for _, w := range s.workers {
				w.mu.Lock()
				if !w.gone {
					if err := w.pen.sync(); err != nil {
						w.mu.Unlock()
						return err
					}
				}
				w.mu.Unlock()
			}
		}
		if s.healed() {
			return nil
		}
	}
	text := ""
	for _, n := range s.nodes {
		text += fmt.Sprintf("; %s: %+v %+v", n.id, n.k.Statuses(), n.k.Copies())
	}
	return fmt.Errorf("not served after everything was repaired: epoch %d%s", s.epoch, text)
}

func (s *sim) healed() bool {
	for _, w := range s.workers {
		if w.epoch != s.epoch {
			continue
		}
		st, ok := w.n.k.Status(tenant)
		if !ok || st.Committed != st.Head || len(s.set.Learners) > 0 || w.counted != st.Head || len(st.Peers) != simNodes-1 {
			return false
		}
		for _, p := range st.Peers {
			if p.Acked != st.Head || !p.Counted || !p.Voter {
				return false
			}
		}
		return true
	}
	return false
}
