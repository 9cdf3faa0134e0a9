package edge

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"sync"
	"testing"

	"github.com/hashicorp/yamux"
)

// plainFabric carries streams over yamux sessions on in-memory connections, one
// per pair of nodes, with yamux's own idea of closing a stream: it ends one side
// only. Calls are function calls.
type plainFabric struct {
	tb testing.TB

	mu       sync.Mutex
	places   map[string]*plainPlace
	sessions map[[2]string]*yamux.Session // from, to
	down     map[string]bool
	running  sync.WaitGroup
}

func newPlainFabric(tb testing.TB) *plainFabric {
	f := &plainFabric{tb: tb, places: map[string]*plainPlace{}, sessions: map[[2]string]*yamux.Session{}, down: map[string]bool{}}
	tb.Cleanup(f.running.Wait)
	return f
}

type plainPlace struct {
	f       *plainFabric
	id      string
	mu      sync.Mutex
	streams map[string]func(ctx context.Context, peer string, c net.Conn)
	calls   map[string]func(ctx context.Context, peer string, in json.RawMessage) (any, error)
}

func (f *plainFabric) attach(id string) endpoint {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := &plainPlace{f: f, id: id, streams: map[string]func(context.Context, string, net.Conn){},
		calls: map[string]func(context.Context, string, json.RawMessage) (any, error){}}
	f.places[id] = p
	return p
}

func (f *plainFabric) cut(id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.down[id] = true
	for pair, s := range f.sessions {
		if pair[0] == id || pair[1] == id {
			s.Close()
			delete(f.sessions, pair)
		}
	}
}

// open is the number of streams that one node has to another.
func (f *plainFabric) open(from, to string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	if s := f.sessions[[2]string{from, to}]; s != nil {
		return s.NumStreams()
	}
	return 0
}

// heal takes a cut back.
func (f *plainFabric) heal(id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.down[id] = false
}

func (p *plainPlace) HandleStream(service string, h func(context.Context, string, net.Conn)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.streams[service] = h
}

func (p *plainPlace) HandleCall(method string, h func(context.Context, string, json.RawMessage) (any, error)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.calls[method] = h
}

func (p *plainPlace) Call(ctx context.Context, node, method string, in, out any) error {
	p.f.mu.Lock()
	other, down := p.f.places[node], p.f.down[node] || p.f.down[p.id]
	p.f.mu.Unlock()
	if down || other == nil {
		return errCut
	}
	other.mu.Lock()
	h := other.calls[method]
	other.mu.Unlock()
	var raw json.RawMessage
	if err := decode(in, &raw); err != nil {
		return err
	}
	got, err := h(ctx, p.id, raw)
	if err != nil {
		return err
	}
	if err := decode(got, &raw); err != nil {
		return err
	}
	return json.Unmarshal(raw, out)
}

func (p *plainPlace) Open(_ context.Context, node, service string) (net.Conn, error) {
	s, err := p.f.session(p.id, node)
	if err != nil {
		return nil, err
	}
	c, err := s.OpenStream()
	if err != nil {
		return nil, err
	}
	_, err = c.Write([]byte(service + "\n"))
	return c, err
}

func (f *plainFabric) session(from, to string) (*yamux.Session, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.down[from] || f.down[to] || f.places[to] == nil {
		return nil, errCut
	}
	if s := f.sessions[[2]string{from, to}]; s != nil && !s.IsClosed() {
		return s, nil
	}
	a, b, err := connPair()
	if err != nil {
		return nil, err
	}
	conf := yamux.DefaultConfig()
	conf.LogOutput, conf.EnableKeepAlive, conf.AcceptBacklog = io.Discard, false, 1024
	there, err := yamux.Server(b, conf)
	if err != nil {
		return nil, err
	}
	s, err := yamux.Client(a, conf)
	if err != nil {
		return nil, err
	}
	f.sessions[[2]string{from, to}] = s
	f.running.Go(func() { f.places[to].serve(from, there) })
	return s, nil
}

func (p *plainPlace) serve(peer string, s *yamux.Session) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var running sync.WaitGroup
	for {
		c, err := s.AcceptStream()
		if err != nil {
			break
		}
		running.Go(func() {
			service := make([]byte, 0, 16)
			for b := make([]byte, 1); ; service = append(service, b[0]) {
				if _, err := io.ReadFull(c, b); err != nil {
					return
				}
				if b[0] == '\n' {
					break
				}
			}
			p.mu.Lock()
			h := p.streams[string(service)]
			p.mu.Unlock()
			h(ctx, peer, c)
		})
	}
	s.Close()
	cancel()
	running.Wait()
}

func connPair() (net.Conn, net.Conn, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	defer l.Close()
	a, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		return nil, nil, err
	}
	b, err := l.Accept()
	return a, b, err
}
