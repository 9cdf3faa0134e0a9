package cluster

import (
	"sync"
	"time"
)

// maxLag is how many entries a member may lack and still count as keeping up.
const maxLag = 1000

// contacts is what a leader hears from the members. On a follower it tells of
// an earlier leadership.
type contacts struct {
	last func() uint64 // last index of this node's log
	gap  time.Duration // silence after which a member is not alive

	mu    sync.Mutex
	peers map[string]contact
}

// contact is one member as last heard.
type contact struct {
	at     time.Time // of its last answer
	last   uint64    // last index of its log then
	stable time.Time // it answers and keeps up since then
}

func newContacts(last func() uint64, gap time.Duration) *contacts {
	return &contacts{last: last, gap: gap, peers: map[string]contact{}}
}

func (c *contacts) from(id string, last uint64) {
	now, end := time.Now(), c.last()
	c.mu.Lock()
	defer c.mu.Unlock()
	p, known := c.peers[id]
	if !known || now.Sub(p.at) > c.gap || last+maxLag < end {
		p.stable = now
	}
	p.at, p.last = now, last
	c.peers[id] = p
}

// of answers what is known of a member and whether it was heard lately.
func (c *contacts) of(id string) (p contact, alive bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p, ok := c.peers[id]
	return p, ok && time.Since(p.at) <= c.gap
}
