package lease

import (
	"sync"
	"time"
)

// Table is the leader's side: who may hold a lease. It lives in memory only. Its
// methods may be called from any goroutine; times are of one Clock.
type Table struct {
	term    time.Duration // how long a node may hold what was granted to it
	window  time.Duration // how long a confirmation lets it grant
	waiting time.Duration // how long nobody is gone after Reset

	mu        sync.Mutex
	leads     bool
	confirmed time.Duration // latest moment at which this node surely led
	began     time.Duration
	nodes     map[string]renewal
}

// renewal is the latest that was heard of a node.
type renewal struct {
	boot     string
	at       time.Duration
	released bool
}

// NewTable makes a table that grants nothing until Reset.
func NewTable() *Table {
	return &Table{term: TTL + Margin, window: ConfirmFor, waiting: TTL + Margin, nodes: map[string]renewal{}}
}

// Reset begins a leadership: nothing is known, so every node has a full term
// from now. It is also right for a leader that noticed that it stood still.
func (t *Table) Reset(now time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.leads, t.began, t.confirmed = true, now, 0
	clear(t.nodes)
}

// Stop ends the leadership: nothing is granted until the next Reset.
func (t *Table) Stop() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.leads = false
}

// Confirm notes that a majority took this node for the leader at the moment
// asked, which is the time from before they were asked.
func (t *Table) Confirm(asked time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.confirmed = max(t.confirmed, asked)
}

// Renewed notes a request that was received at the moment and answers whether it
// is granted. boot names the start of the node's process.
func (t *Table) Renewed(node, boot string, at time.Duration) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.leads || t.confirmed < t.began || at-t.confirmed >= t.window {
		return false
	}
	t.nodes[node] = renewal{boot: boot, at: max(at, t.nodes[node].at)}
	return true
}

// Release notes that a process of the node gave up its lease. What an earlier
// process of it says late counts for nothing.
func (t *Table) Release(node, boot string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r, ok := t.nodes[node]
	if !ok || r.boot != boot {
		return
	}
	r.released = true
	t.nodes[node] = r
}

// GoneAt is the moment from which the node surely holds no lease, unless it
// renews before. false: the table cannot say, because this node does not lead.
func (t *Table) GoneAt(node string) (time.Duration, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.goneAt(node), t.leads
}

func (t *Table) goneAt(node string) time.Duration {
	r, ok := t.nodes[node]
	switch {
	case !ok:
		return t.began + t.waiting
	case r.released:
		return r.at
	}
	return r.at + t.term
}

// Expired lists those of the nodes that surely hold no lease now, in the given
// order.
func (t *Table) Expired(now time.Duration, nodes []string) (gone []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.leads {
		return nil
	}
	for _, n := range nodes {
		if now >= t.goneAt(n) {
			gone = append(gone, n)
		}
	}
	return gone
}

// Heard tells whether the node renewed in this leadership, and how long ago.
func (t *Table) Heard(node string, now time.Duration) (ago time.Duration, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r, ok := t.nodes[node]
	return now - r.at, ok && !r.released
}
