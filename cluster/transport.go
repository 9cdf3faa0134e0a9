package cluster

import (
	"io"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

const transportTimeout = 5 * time.Second

// transport makes raft's transport over the configured stream. Its closer ends
// the connections.
func (c *Config) transport(log *raftLog, heard *contacts) (raft.Transport, io.Closer) {
	if c.Stream == nil {
		_, t := raft.NewInmemTransport(raft.ServerAddress(c.NodeID))
		return t, t
	}
	s := &nodeStream{Stream: c.Stream, id: c.NodeID, open: map[*trackedConn]struct{}{}}
	t := raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream: s, MaxPool: 3, Timeout: transportTimeout, Logger: log.Named("transport"), MsgpackUseNewTimeFormat: true,
	})
	p := &peerTransport{NetworkTransport: t, stream: s, heard: heard}
	return p, p
}

// peerTransport notes what the members answer: raft keeps that to itself.
// Heartbeats pass here many times a second.
type peerTransport struct {
	*raft.NetworkTransport
	stream *nodeStream
	heard  *contacts
}

func (t *peerTransport) AppendEntries(id raft.ServerID, target raft.ServerAddress,
	args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	err := t.NetworkTransport.AppendEntries(id, target, args, resp)
	if err == nil {
		t.heard.from(string(id), resp.LastLog)
	}
	return err
}

// Close ends every connection, also those that raft's transport leaves open.
func (t *peerTransport) Close() error {
	err := t.NetworkTransport.Close()
	t.CloseStreams()
	t.stream.closeConns()
	return err
}

// nodeStream makes node ids the addresses that raft stores, so that a change of
// an IP address needs no change of the configuration. It knows the open
// connections.
type nodeStream struct {
	Stream
	id string

	mu     sync.Mutex
	closed bool
	open   map[*trackedConn]struct{}
}

func (s *nodeStream) Addr() net.Addr { return nodeAddr(s.id) }

func (s *nodeStream) Accept() (net.Conn, error) { return s.track(s.Stream.Accept()) }

func (s *nodeStream) Dial(addr raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	return s.track(s.DialNode(string(addr), timeout))
}

func (s *nodeStream) track(c net.Conn, err error) (net.Conn, error) {
	if err != nil {
		return nil, err
	}
	t := &trackedConn{Conn: c, of: s}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		c.Close()
		return nil, net.ErrClosed
	}
	s.open[t] = struct{}{}
	return t, nil
}

func (s *nodeStream) closeConns() {
	s.mu.Lock()
	s.closed = true
	open := s.open
	s.open = map[*trackedConn]struct{}{}
	s.mu.Unlock()
	for c := range open {
		c.Conn.Close()
	}
}

type trackedConn struct {
	net.Conn
	of *nodeStream
}

func (c *trackedConn) Close() error {
	c.of.mu.Lock()
	delete(c.of.open, c)
	c.of.mu.Unlock()
	return c.Conn.Close()
}

type nodeAddr string

func (nodeAddr) Network() string  { return "node" }
func (a nodeAddr) String() string { return string(a) }
