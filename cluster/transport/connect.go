package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"
)

const (
	maxAttempts = 4               // that one caller waits for
	yieldTime   = 2 * time.Second // for the peer's own dial to come through
)

// session answers the session with a node, and dials if there is none. After a
// dial that failed it answers that failure for a short while.
func (t *Transport) session(ctx context.Context, node string) (*session, error) {
	if node == t.cfg.NodeID {
		return nil, errors.New("that is this node")
	}
	p, err := t.peer(node)
	if err != nil {
		return nil, err
	}
	for range maxAttempts {
		if err := t.allowed(node); err != nil {
			return nil, err
		}
		s, a, err := t.want(p)
		if s != nil || err != nil {
			return s, err
		}
		select {
		case <-a.done:
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-t.done:
			return nil, errClosed
		}
	}
	return nil, errors.New("connections break as soon as they are made")
}

// want answers a session, or the attempt to wait for.
func (t *Transport) want(p *peer) (*session, *attempt, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.session != nil && !p.session.broken() {
		return p.session, nil, nil
	}
	if p.attempt != nil {
		return nil, p.attempt, nil
	}
	if time.Now().Before(p.notNow) {
		return nil, nil, p.err
	}
	ctx, cancel := context.WithTimeout(context.Background(), handshakeTimeout)
	a := &attempt{done: make(chan struct{}), abort: cancel}
	p.attempt = a
	if !t.spawn(func() { defer cancel(); t.dialMux(ctx, p, a) }) {
		cancel()
		p.finish(a)
		return nil, nil, errClosed
	}
	return nil, a, nil
}

// dialMux is our own attempt: it ends with a session that it runs, or with an
// entry of why there is none.
func (t *Transport) dialMux(ctx context.Context, p *peer, a *attempt) {
	s, err := t.greet(ctx, p, a)
	if err != nil {
		p.fail(a, err)
		return
	}
	t.runSession(p, a, s)
}

// runSession puts a session on record and serves it.
func (t *Transport) runSession(p *peer, a *attempt, s *session) {
	installed := p.install(a, s)
	if err := t.allowed(p.id); err != nil || !installed {
		s.close()
	}
	s.run(func() { p.gone(s) })
}

// greet dials and asks for admission.
func (t *Transport) greet(ctx context.Context, p *peer, a *attempt) (*session, error) {
	tc, err := t.dialTLS(ctx, p.id, protoMux)
	if err != nil {
		return nil, err
	}
	below := tc.NetConn()
	stop := context.AfterFunc(ctx, func() { _ = below.Close() })
	inst, err := t.ask(ctx, tc, p, a)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		_ = below.Close()
		return nil, err
	}
	return t.newSession(p.id, inst, newWire(tc, below), true)
}

// ask names this instance and waits for the peer's decision. Of two dials that
// cross, the one of the smaller node id stands.
func (t *Transport) ask(ctx context.Context, tc *tls.Conn, p *peer, a *attempt) (inst instance, err error) {
	if !p.say(a) {
		return inst, errDisplaced
	}
	if _, err := tc.Write(t.instance[:]); err != nil {
		return inst, fmt.Errorf("ask to be admitted: %w", refusal(err))
	}
	v, err := readVerdict(tc)
	switch {
	case err != nil:
		return inst, err
	case v == admitted:
		return readInstance(tc)
	case v == yield:
		t.awaitPeer(ctx)
		return inst, errors.New("peer is connecting to this node but does not get through")
	}
	return inst, errors.New("peer has no room for another session now")
}

var errDisplaced = errors.New("another connection came first")

// awaitPeer waits for the peer's dial, which ends this context when it comes.
func (t *Transport) awaitPeer(ctx context.Context) {
	patience := time.NewTimer(yieldTime)
	defer patience.Stop()
	select {
	case <-ctx.Done():
	case <-patience.C:
	}
}

// say notes that our dial is before the peer's decision, unless it was given up
// already.
func (p *peer) say(a *attempt) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	a.said = p.attempt == a
	return a.said
}

// serveMux decides about a peer's dial and serves the session that it makes.
func (t *Transport) serveMux(node string, tc *tls.Conn, below net.Conn, admit func()) error {
	s, p, a, err := t.admitMux(node, tc, below)
	if err != nil {
		return errors.Join(err, below.Close())
	}
	admit()
	t.runSession(p, a, s)
	return nil
}

func (t *Transport) admitMux(node string, tc *tls.Conn, below net.Conn) (*session, *peer, *attempt, error) {
	inst, err := readInstance(tc)
	if err != nil {
		return nil, nil, nil, err
	}
	p, err := t.peer(node)
	if err != nil {
		return nil, nil, nil, err
	}
	a := t.decide(p, inst, below)
	if a == nil {
		_, err := tc.Write([]byte{byte(yield)})
		return nil, nil, nil, errors.Join(errDisplaced, err)
	}
	s, err := t.admitted(node, inst, tc, below)
	if err != nil {
		p.abandon(a)
		return nil, nil, nil, err
	}
	return s, p, a, nil
}

func (t *Transport) admitted(node string, inst instance, tc *tls.Conn, below net.Conn) (*session, error) {
	if _, err := tc.Write(append([]byte{byte(admitted)}, t.instance[:]...)); err != nil {
		return nil, fmt.Errorf("admit a session: %w", err)
	}
	if err := below.SetDeadline(time.Time{}); err != nil {
		return nil, fmt.Errorf("admit a session: %w", err)
	}
	return t.newSession(node, inst, newWire(tc, below), false)
}

// decide answers the attempt that the peer's dial has become, or nil: a session
// stands that answers, or our own dial takes precedence.
func (t *Transport) decide(p *peer, inst instance, below net.Conn) *attempt {
	old := p.current()
	if old != nil {
		// A peer that dials has lost the session, or crossed with it.
		if old.instance == inst && old.alive() {
			return nil
		}
		old.close()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.session != nil && p.session != old && !p.session.broken() {
		return nil
	}
	if p.attempt != nil && p.attempt.said && t.cfg.NodeID < p.id {
		return nil
	}
	a := &attempt{done: make(chan struct{}), abort: func() { _ = below.Close() }}
	p.displace(a)
	return a
}
