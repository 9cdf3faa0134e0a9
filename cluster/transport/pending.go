package transport

import (
	"container/list"
	"net"
	"sync"
)

const (
	maxPending       = 256 // connections between accept and admission
	maxPendingSource = 32  // of one IP address
)

// pending holds the connections that have not said who they are. When there is
// no room the one that has been at it longest goes: a member is done in
// milliseconds, so that is hardly ever a member.
type pending struct {
	mu      sync.Mutex
	conns   list.List // of *pendingConn, oldest first
	sources map[string]int
}

type pendingConn struct {
	net.Conn
	source string
}

func (p *pending) add(c net.Conn) *list.Element {
	pc := &pendingConn{c, source(c)}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.sources == nil {
		p.sources = map[string]int{}
	}
	if p.sources[pc.source] >= maxPendingSource {
		p.evict(func(old *pendingConn) bool { return old.source == pc.source })
	} else if p.conns.Len() >= maxPending {
		p.evict(func(*pendingConn) bool { return true })
	}
	p.sources[pc.source]++
	return p.conns.PushBack(pc)
}

// evict closes the oldest that matches.
func (p *pending) evict(match func(*pendingConn) bool) {
	for e := p.conns.Front(); e != nil; e = e.Next() {
		if pc := e.Value.(*pendingConn); match(pc) {
			_ = pc.Close()
			p.drop(e)
			return
		}
	}
}

// drop takes an entry out if it is still there, with p.mu held.
func (p *pending) drop(e *list.Element) {
	pc := e.Value.(*pendingConn)
	before := p.conns.Len()
	p.conns.Remove(e)
	if p.conns.Len() == before {
		return
	}
	if p.sources[pc.source]--; p.sources[pc.source] == 0 {
		delete(p.sources, pc.source)
	}
}

func (p *pending) remove(e *list.Element) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.drop(e)
}

func (p *pending) closeAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for e := p.conns.Front(); e != nil; e = e.Next() {
		_ = e.Value.(*pendingConn).Close()
	}
}

func source(c net.Conn) string {
	addr := c.RemoteAddr()
	if addr == nil {
		return ""
	}
	host, _, err := net.SplitHostPort(addr.String())
	if err != nil {
		return addr.String()
	}
	return host
}
