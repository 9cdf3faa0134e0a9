package gateway

import (
	"net/netip"
	"sync"
	"time"
)

// maxSources bounds the addresses that guard remembers.
const maxSources = 1 << 16

// guard counts, per source address, connections that nobody has authenticated
// yet and wrong credentials. It never touches requests with a valid key. It is
// safe for concurrent use.
type guard struct {
	door Door

	mu      sync.Mutex
	sources map[netip.Addr]*source
	total   int // connections of every kind
}

// source is one address. Its fields belong to guard.mu.
type source struct {
	open     int // connections
	waiting  int // those of them that no request has authenticated yet
	failures int
	since    time.Time // start of the minute that failures counts
}

func newGuard(d Door) *guard {
	return &guard{door: d, sources: map[netip.Addr]*source{}}
}

// sourceAddr is the unit that is counted: an IPv4 address, or an IPv6 /64, which
// is what one host can choose from freely.
func sourceAddr(a netip.Addr) netip.Addr {
	a = a.Unmap().WithZone("")
	if !a.Is6() {
		return a
	}
	p, _ := a.Prefix(64) // cannot fail: 64 fits
	return p.Addr()
}

// enter admits a new connection, or returns nil.
func (g *guard) enter(a netip.Addr) *source {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := g.sourceLocked(sourceAddr(a))
	if g.total >= g.door.Connections || s.waiting >= g.door.PerIP {
		return nil
	}
	g.total++
	s.open++
	s.waiting++
	return s
}

// known says that a connection now belongs to a tenant and is counted there.
func (g *guard) known(s *source) {
	g.mu.Lock()
	defer g.mu.Unlock()
	s.waiting--
}

// leave ends a connection.
func (g *guard) leave(s *source, known bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.total--
	s.open--
	if !known {
		s.waiting--
	}
}

// failed counts a wrong credential and reports whether the address has had too
// many within the minute.
func (g *guard) failed(s *source, now time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if now.Sub(s.since) >= time.Minute {
		s.since, s.failures = now, 0
	}
	s.failures++
	return s.failures > g.door.FailuresPerMin
}

// sourceLocked finds or makes the entry of an address. When the table is full,
// new addresses share one entry: they are only counted too strictly then.
func (g *guard) sourceLocked(a netip.Addr) *source {
	s := g.sources[a]
	if s == nil && len(g.sources) >= maxSources {
		a = netip.Addr{}
		s = g.sources[a]
	}
	if s == nil {
		s = &source{}
		g.sources[a] = s
	}
	return s
}

// sweep forgets addresses that have nothing open and no recent failure.
func (g *guard) sweep(now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for a, s := range g.sources {
		if s.open == 0 && now.Sub(s.since) >= time.Minute {
			delete(g.sources, a)
		}
	}
}
