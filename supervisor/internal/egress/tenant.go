package egress

import (
	"maps"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// Config is what the node's configuration says about every tenant's egress. A
// zero field takes its default.
type Config struct {
	Allow       []netip.Prefix // operator's list: admitted though the deny table has them, metadata addresses too
	DenyOwnHost bool           // deny the addresses of this host's interfaces, but for allow_private providers
	DialTimeout time.Duration  // name resolution and connect together; default 10 s
	MaxOpen     int            // open connections of a tenant, running dials included; default 256
	DialRate    float64        // dials a second of a tenant, sustained; default 50
	DialBurst   int            // dials at once beyond the rate; default 100
	Resolver    *net.Resolver  // nil = the host's
}

// maxRunning bounds the broker requests of one worker that run at a time.
const maxRunning = 128

func (c Config) withDefaults() Config {
	if c.DialTimeout <= 0 {
		c.DialTimeout = 10 * time.Second
	}
	if c.MaxOpen <= 0 {
		c.MaxOpen = 256
	}
	if c.DialRate <= 0 {
		c.DialRate = 50
	}
	if c.DialBurst <= 0 {
		c.DialBurst = 100
	}
	return c
}

// Stats counts what a tenant's broker did since the supervisor started.
type Stats struct {
	Dials    uint64 // connections handed out
	Denied   uint64 // refused by the deny table or the allow-list
	Busy     uint64 // refused by a cap
	Failed   uint64 // not connected for any other reason
	Revoked  uint64 // connections shut down while the worker had them
	Open     int    // connections that a worker holds now
	Requests uint64 // broker requests of all kinds
}

// Tenant is the egress of one tenant. It outlives the tenant's workers, so that
// a worker cannot refresh its caps by crashing. Its methods may be called
// concurrently.
type Tenant struct {
	cfg   Config
	dials *bucket

	mu      sync.Mutex
	targets map[string]Target
	open    map[*held]struct{}
	dialing int // running dials: they count as open

	requests, handed, denied, busy, failed, revoked atomic.Uint64
}

// NewTenant makes the egress of a tenant that may reach nothing yet.
func NewTenant(cfg Config) *Tenant {
	cfg = cfg.withDefaults()
	return &Tenant{
		cfg:   cfg,
		dials: newBucket(cfg.DialRate, float64(cfg.DialBurst)),
		open:  make(map[*held]struct{}),
	}
}

// SetTargets replaces the allow-list, by provider name, and shuts down every
// connection whose provider is gone or points elsewhere now.
func (t *Tenant) SetTargets(targets map[string]Target) {
	t.mu.Lock()
	t.targets = maps.Clone(targets)
	var gone []*held
	for h := range t.open {
		if t.targets[h.provider] != h.target {
			gone = append(gone, h)
			delete(t.open, h)
		}
	}
	t.mu.Unlock()
	t.revoke(gone)
}

// Stats returns the present counts.
func (t *Tenant) Stats() Stats {
	t.mu.Lock()
	open := len(t.open)
	t.mu.Unlock()
	return Stats{
		Dials: t.handed.Load(), Denied: t.denied.Load(), Busy: t.busy.Load(), Failed: t.failed.Load(),
		Revoked: t.revoked.Load(), Open: open, Requests: t.requests.Load(),
	}
}

// Target answers the present target of a provider.
func (t *Tenant) Target(provider string) (Target, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	target, ok := t.targets[provider]
	return target, ok
}

// begin reserves a place for one connection. Every begin has one end: admit, when
// it succeeds, or giveUp.
func (t *Tenant) begin() bool {
	if !t.dials.take() {
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.open)+t.dialing >= t.cfg.MaxOpen {
		t.reapLocked()
	}
	if len(t.open)+t.dialing >= t.cfg.MaxOpen {
		return false
	}
	t.dialing++
	return true
}

func (t *Tenant) giveUp() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.dialing--
}

// admit registers a connection in the reserved place, unless its provider was
// changed meanwhile. The place is never counted twice: a worker that has its
// answer may ask for the next connection at once.
func (t *Tenant) admit(h *held) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.targets[h.provider] != h.target {
		return false
	}
	t.open[h] = struct{}{}
	t.dialing--
	return true
}

// reap forgets the connections that have ended.
func (t *Tenant) reap() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.reapLocked()
}

func (t *Tenant) reapLocked() {
	for h := range t.open {
		if h.reap() {
			delete(t.open, h)
		}
	}
}

// revokeAll ends every connection: the worker that had them is gone.
func (t *Tenant) revokeAll() {
	t.mu.Lock()
	all := make([]*held, 0, len(t.open))
	for h := range t.open {
		all = append(all, h)
	}
	clear(t.open)
	t.mu.Unlock()
	t.revoke(all)
}

func (t *Tenant) revoke(gone []*held) {
	for _, h := range gone {
		h.revoke()
	}
	t.revoked.Add(uint64(len(gone)))
}
