package transport

import (
	"math/rand/v2"
	"sync"
	"time"
)

// peer is this node's end of the one session with another node.
type peer struct {
	id string

	mu      sync.Mutex
	session *session  // nil: none; may be broken
	attempt *attempt  // nil: none under way
	fails   int       // attempts of ours since the last session
	notNow  time.Time // no attempt of ours before
	err     error     // why the latest one failed
}

// attempt is a session in the making, by our dial or the peer's.
type attempt struct {
	done  chan struct{} // closed when there is a session, or none
	abort func()        // does not block
	said  bool          // our dial has reached the peer's decision
}

// finish ends an attempt, if it is the present one, with p.mu held.
func (p *peer) finish(a *attempt) bool {
	if p.attempt != a {
		return false
	}
	p.attempt = nil
	close(a.done)
	return true
}

// displace puts a new attempt in the place of the present one, with p.mu held.
func (p *peer) displace(a *attempt) {
	if old := p.attempt; old != nil {
		old.abort()
		p.finish(old)
	}
	p.attempt = a
}

// install makes s the session if the attempt still stands.
func (p *peer) install(a *attempt, s *session) bool {
	p.mu.Lock()
	if !p.finish(a) {
		p.mu.Unlock()
		return false
	}
	old := p.session
	p.session, p.fails, p.err, p.notNow = s, 0, nil, time.Time{}
	p.mu.Unlock()
	if old != nil {
		old.close()
	}
	return true
}

// abandon ends an attempt of the peer's: its failure is not ours to wait for.
func (p *peer) abandon(a *attempt) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.finish(a)
}

// current answers the session, nil if there is none that works.
func (p *peer) current() *session {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.session == nil || p.session.broken() {
		return nil
	}
	return p.session
}

func (p *peer) gone(s *session) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.session == s {
		p.session = nil
	}
}

// fail ends our own attempt and says when the next may begin.
func (p *peer) fail(a *attempt, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.finish(a) {
		return // displaced: not a failure
	}
	p.fails++
	p.err = err
	delay := min(minBackoff<<min(p.fails-1, 8), maxBackoff)
	p.notNow = time.Now().Add(delay/2 + rand.N(delay/2+1))
}

// disconnect ends session and attempt.
func (p *peer) disconnect() {
	p.mu.Lock()
	s := p.session
	p.session = nil
	p.displace(nil)
	p.mu.Unlock()
	if s != nil {
		s.close()
	}
}

func (t *Transport) peer(id string) (*peer, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil, errClosed
	}
	p := t.peers[id]
	if p == nil {
		p = &peer{id: id}
		t.peers[id] = p
	}
	return p, nil
}
