package placement

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"math"
	"slices"
	"strings"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
)

// board is the facts as decisions change them.
type board struct {
	nodes   []*place // sorted by id
	byID    map[string]*place
	tenants []Tenant // sorted by id
	total   float64  // weight of all tenants
}

// place is a node and what is on it.
type place struct {
	Node
	taken  command.Capacity
	weight float64
	copies int // replicas that it keeps
}

func newBoard(f Facts) *board {
	b := &board{byID: map[string]*place{}}
	for _, n := range f.Nodes {
		p := &place{Node: n}
		b.nodes = append(b.nodes, p)
		b.byID[n.ID] = p
	}
	slices.SortFunc(b.nodes, func(x, y *place) int { return cmp.Compare(x.ID, y.ID) })
	b.tenants = slices.SortedFunc(slices.Values(f.Tenants), func(x, y Tenant) int { return cmp.Compare(x.ID, y.ID) })
	for i := range b.tenants {
		t := &b.tenants[i]
		b.total += weight(t)
		if p := b.byID[t.Assigned]; p != nil {
			p.add(t, 1)
		}
		for _, r := range slices.Concat(t.Voters, t.Learners) {
			if p := b.byID[r.Node]; p != nil && p.Receiver == r.Receiver {
				p.copies++
			}
		}
	}
	return b
}

// weight is a tenant's load; one that does nothing still counts a little, so that
// idle tenants are spread as well.
func weight(t *Tenant) float64 {
	const idle = 0.01
	return idle + max(0, t.Load)
}

func (p *place) add(t *Tenant, sign int64) {
	p.taken.MemoryBytes += sign * t.Reserve.MemoryBytes
	p.taken.CPUMilli += sign * t.Reserve.CPUMilli
	p.weight += float64(sign) * weight(t)
}

// takes answers why the node takes no tenant now, "" if it does.
func (p *place) takes() string {
	switch {
	case !p.Alive:
		return "is down"
	case p.Silent:
		return "does not answer at the moment"
	case p.Draining:
		return "is draining"
	case p.Outdated:
		return "runs an older version"
	}
	return ""
}

// suits answers why the tenant may never run on the node as both are described,
// "" if it may.
func (p *place) suits(t *Tenant) string {
	if t.Pin != "" && t.Pin != p.ID {
		return "the tenant is pinned to " + t.Pin
	}
	for _, k := range sortedKeys(t.Labels) {
		if p.Labels[k] != t.Labels[k] {
			return fmt.Sprintf("lacks the label %s=%s", k, t.Labels[k])
		}
	}
	return ""
}

// copyOf answers why the node cannot become the owner of the tenant's journal, ""
// if it can: its copy must be one that counts.
func (p *place) copyOf(t *Tenant) string {
	if len(t.Voters) == 0 || slices.Contains(t.Voters, command.Replica{Node: p.ID, Receiver: p.Receiver}) {
		return ""
	}
	if slices.ContainsFunc(t.Voters, func(r command.Replica) bool { return r.Node == p.ID }) {
		return "has a new disk without the tenant's journal"
	}
	return "keeps no copy of the tenant's journal"
}

// room answers why the tenant does not fit beside what is on the node, "" if it
// does.
func (p *place) room(t *Tenant) string {
	if m := p.Capacity.MemoryBytes; m > 0 && p.taken.MemoryBytes+t.Reserve.MemoryBytes > m {
		return fmt.Sprintf("has %d MiB of memory left", max(0, m-p.taken.MemoryBytes)>>20)
	}
	if c := p.Capacity.CPUMilli; c > 0 && p.taken.CPUMilli+t.Reserve.CPUMilli > c {
		return fmt.Sprintf("has %d thousandths of a core left", max(0, c-p.taken.CPUMilli))
	}
	return ""
}

// refuses answers the first reason against running the tenant on the node.
func (p *place) refuses(t *Tenant) string {
	return cmp.Or(p.suits(t), p.takes(), p.copyOf(t), p.room(t))
}

// candidates lists the nodes that can take the tenant, and otherwise why none
// can.
func (b *board) candidates(t *Tenant) (able []*place, reason string) {
	if len(b.nodes) == 0 {
		return nil, "the cluster has no nodes"
	}
	if t.Pin != "" && b.byID[t.Pin] == nil {
		return nil, "the tenant is pinned to " + t.Pin + ", which is no node of the cluster"
	}
	var reasons []string
	for _, p := range b.nodes {
		if t.Pin != "" && t.Pin != p.ID {
			continue
		}
		if r := p.refuses(t); r != "" {
			reasons = append(reasons, p.ID+" "+r)
			continue
		}
		able = append(able, p)
	}
	if t.Pin != "" && len(able) == 0 {
		return nil, "the tenant is pinned: " + strings.Join(reasons, "; ")
	}
	return able, strings.Join(reasons, "; ")
}

// choose picks the best of the nodes that can take the tenant.
func (b *board) choose(t *Tenant, able []*place) *place {
	able = near(t, prefer(prefer(able, (*place).hasDisk), (*place).steady))
	return slices.MaxFunc(able, func(x, y *place) int {
		return cmp.Or(cmp.Compare(b.score(x, t), b.score(y, t)), cmp.Compare(rendezvous(t.ID, x.ID), rendezvous(t.ID, y.ID)))
	})
}

func (p *place) hasDisk() bool { return !p.Full }
func (p *place) steady() bool  { return !p.Unsteady } // does not come and go

// prefer leaves out the nodes that are not good, unless there are no others.
func prefer(able []*place, good func(*place) bool) []*place {
	list := slices.DeleteFunc(slices.Clone(able), func(p *place) bool { return !good(p) })
	if len(list) == 0 {
		return able
	}
	return list
}

// near keeps the nodes whose copy is about as long as the best of them.
func near(t *Tenant, able []*place) []*place {
	var best Position
	for _, p := range able {
		if at := t.Positions[p.ID]; at.Epoch > best.Epoch || at.Epoch == best.Epoch && at.Seq > best.Seq {
			best = at
		}
	}
	return slices.DeleteFunc(slices.Clone(able), func(p *place) bool {
		at := t.Positions[p.ID]
		return at.Epoch != best.Epoch || at.Seq+nearEnough < best.Seq
	})
}

// score is Nomad's ScoreFitSpread: the more is free with the tenant on it, the
// better, and a node that runs out of one thing loses more than it gains by the
// other. What is free of the load is counted against the load of the cluster, so
// without reservations it is the least loaded node.
func (b *board) score(p *place, t *Tenant) float64 {
	score := math.Pow(10, free(p.weight+weight(t), b.total+weight(t)))
	score += math.Pow(10, free(float64(p.taken.MemoryBytes+t.Reserve.MemoryBytes), float64(p.Capacity.MemoryBytes)))
	score += math.Pow(10, free(float64(p.taken.CPUMilli+t.Reserve.CPUMilli), float64(p.Capacity.CPUMilli)))
	// Sums of floats depend on their order in the last digits; ties must not.
	return math.Round(score * 1e9)
}

func free(used, of float64) float64 {
	if of <= 0 {
		return 1
	}
	return 1 - used/of
}

// rendezvous spreads what is equal otherwise, the same way everywhere.
func rendezvous(tenant bulkhead.TenantID, node string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(tenant)) // never fails
	h.Write([]byte{0})
	h.Write([]byte(node))
	x := h.Sum64() // FNV's last byte hardly reaches the high bits: mix
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	return x
}

func sortedKeys(m map[string]string) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
