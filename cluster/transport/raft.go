package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// maxRaftConns is how many of a peer's Raft connections stand at a time; Raft
// uses about five. A new one displaces the oldest, which may be left over from
// before a cut.
const maxRaftConns = 16

// raftConns is what is open on bh-raft/1, both ways.
type raftConns struct {
	mu     sync.Mutex
	closed bool
	in     map[string][]*raftConn // by peer, oldest first
	out    map[*raftConn]struct{}
	stream *RaftStream   // who accepts now
	waiter chan struct{} // closed when stream is replaced
}

func (r *raftConns) init() {
	r.in, r.out, r.waiter = map[string][]*raftConn{}, map[*raftConn]struct{}{}, make(chan struct{})
}

// raftConn strikes itself off when it is closed.
type raftConn struct {
	net.Conn
	peer  string
	owner *raftConns
	once  sync.Once
	err   error
}

// Close implements net.Conn. It does without TLS's goodbye, for which a dead
// peer would make it wait.
func (c *raftConn) Close() error {
	c.once.Do(func() {
		c.owner.remove(c)
		c.err = c.Conn.(*tls.Conn).NetConn().Close()
	})
	return c.err
}

func (r *raftConns) remove(c *raftConn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.out, c)
	for i, o := range r.in[c.peer] {
		if o == c {
			r.in[c.peer] = append(r.in[c.peer][:i:i], r.in[c.peer][i+1:]...)
			break
		}
	}
	if len(r.in[c.peer]) == 0 {
		delete(r.in, c.peer)
	}
}

func (r *raftConns) add(peer string, conn *tls.Conn, accepted bool) (*raftConn, error) {
	c := &raftConn{Conn: conn, peer: peer, owner: r}
	var oldest *raftConn
	r.mu.Lock()
	switch {
	case r.closed:
		r.mu.Unlock()
		return nil, errClosed
	case accepted:
		if r.in[peer] = append(r.in[peer], c); len(r.in[peer]) > maxRaftConns {
			oldest = r.in[peer][0]
		}
	default:
		r.out[c] = struct{}{}
	}
	r.mu.Unlock()
	if oldest != nil {
		_ = oldest.Close()
	}
	return c, nil
}

// peers answers who has connections open.
func (r *raftConns) peers() map[string]bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	ids := map[string]bool{}
	for id := range r.in {
		ids[id] = true
	}
	for c := range r.out {
		ids[c.peer] = true
	}
	return ids
}

func (r *raftConns) disconnect(match func(peer string) bool) {
	r.mu.Lock()
	var doomed []*raftConn
	for _, conns := range r.in {
		for _, c := range conns {
			if match(c.peer) {
				doomed = append(doomed, c)
			}
		}
	}
	for c := range r.out {
		if match(c.peer) {
			doomed = append(doomed, c)
		}
	}
	r.mu.Unlock()
	for _, c := range doomed {
		_ = c.Close()
	}
}

func (r *raftConns) closeAll() {
	r.mu.Lock()
	r.closed = true
	stream := r.stream
	r.mu.Unlock()
	if stream != nil {
		_ = stream.Close()
	}
	r.disconnect(func(string) bool { return true })
}

// serveRaft hands an accepted connection to whoever accepts Raft's now.
func (t *Transport) serveRaft(node string, tc *tls.Conn, admit func()) error {
	conn, err := t.raft.add(node, tc, true)
	if err != nil {
		_ = tc.NetConn().Close()
		return err
	}
	if err := t.offer(node, conn, admit); err != nil {
		return errors.Join(err, conn.Close())
	}
	return nil
}

func (t *Transport) offer(node string, conn *raftConn, admit func()) error {
	if err := t.allowed(node); err != nil {
		return err
	}
	if _, err := conn.Write([]byte{byte(admitted)}); err != nil {
		return fmt.Errorf("admit a raft connection: %w", err)
	}
	admit()
	if err := conn.SetDeadline(time.Time{}); err != nil {
		return fmt.Errorf("admit a raft connection: %w", err)
	}
	return t.raft.deliver(conn, t.done)
}

// deliver waits for an accepter, but not for long: a node that has no Raft yet
// need not keep connections for it.
func (r *raftConns) deliver(conn *raftConn, done <-chan struct{}) error {
	patience := time.NewTimer(handshakeTimeout)
	defer patience.Stop()
	for {
		r.mu.Lock()
		stream, replaced := r.stream, r.waiter
		r.mu.Unlock()
		var accept chan<- net.Conn
		if stream != nil {
			accept = stream.conns
		}
		select {
		case accept <- conn:
			return nil
		case <-replaced:
		case <-patience.C:
			return errors.New("nobody accepts raft connections here")
		case <-done:
			return errClosed
		}
	}
}

// RaftStream carries Raft's connections; it satisfies cluster.Stream.
type RaftStream struct {
	t      *Transport
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

// Raft answers a stream for Raft. The newest one accepts; closing it leaves the
// Transport as it is, and a node that is opened again asks for another.
func (t *Transport) Raft() *RaftStream {
	s := &RaftStream{t: t, conns: make(chan net.Conn), closed: make(chan struct{})}
	r := &t.raft
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		s.once.Do(func() { close(s.closed) })
		return s
	}
	r.stream = s
	close(r.waiter)
	r.waiter = make(chan struct{})
	return s
}

// Accept implements net.Listener.
func (s *RaftStream) Accept() (net.Conn, error) {
	select {
	case <-s.closed:
		return nil, net.ErrClosed
	default:
	}
	select {
	case c := <-s.conns:
		return c, nil
	case <-s.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener: nothing is accepted any more.
func (s *RaftStream) Close() error {
	s.once.Do(func() {
		close(s.closed)
		r := &s.t.raft
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.stream == s {
			r.stream = nil
		}
	})
	return nil
}

// Addr implements net.Listener.
func (s *RaftStream) Addr() net.Addr { return nodeAddr(s.t.cfg.NodeID) }

// DialNode connects to a node by its id; it answers once the node has admitted
// the connection. The timeout is at most 5 s.
func (s *RaftStream) DialNode(id string, timeout time.Duration) (net.Conn, error) {
	if timeout <= 0 || timeout > handshakeTimeout {
		timeout = handshakeTimeout
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	conn, err := s.t.dialRaft(ctx, id)
	if err != nil {
		return nil, unreachable(id, err)
	}
	return conn, nil
}

func (t *Transport) dialRaft(ctx context.Context, node string) (net.Conn, error) {
	tc, err := t.dialTLS(ctx, node, protoRaft)
	if err != nil {
		return nil, err
	}
	conn, err := t.raft.add(node, tc, false)
	if err != nil {
		_ = tc.NetConn().Close()
		return nil, err
	}
	if err := t.awaitRaft(ctx, conn); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

func (t *Transport) awaitRaft(ctx context.Context, conn *raftConn) error {
	if err := t.allowed(conn.peer); err != nil {
		return err
	}
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return fmt.Errorf("wait to be admitted: %w", err)
	}
	v, err := readVerdict(conn)
	switch {
	case err != nil:
		return err
	case v != admitted:
		return errors.New("peer does not take a raft connection now")
	}
	return conn.SetDeadline(time.Time{})
}

// nodeAddr is a node's address: its id.
type nodeAddr string

func (nodeAddr) Network() string  { return "node" }
func (a nodeAddr) String() string { return string(a) }
