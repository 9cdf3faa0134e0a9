package transport

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/bulkhead-ai/bulkhead/cluster/transport/ca"
	"go.uber.org/zap"
)

// Transport is a node's end of all connections with the others. All methods may
// be called from any goroutine.
type Transport struct {
	cfg      Config
	instance instance
	handlers handlers
	raft     raftConns
	pending  pending
	joins    chan struct{} // one slot for each join that is being served

	done    chan struct{} // closed by Close
	closing sync.Once
	running sync.WaitGroup

	mu     sync.Mutex
	closed bool
	peers  map[string]*peer
}

// New makes a Transport. It accepts nobody before Run; it can dial at once.
func New(cfg Config) (*Transport, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("make transport: %w", err)
	}
	t := &Transport{
		cfg: cfg, joins: make(chan struct{}, maxJoins), done: make(chan struct{}), peers: map[string]*peer{},
	}
	t.raft.init()
	t.handlers.setStream(callService, t.serveCall)
	if t.instance, err = newInstance(); err != nil {
		return nil, fmt.Errorf("make transport: %w", err)
	}
	return t, nil
}

// Run accepts connections until the context ends or Close is called, then closes
// the Transport. It answers an error only if the listener failed. Call it once.
func (t *Transport) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, t.close)
	defer stop()
	err := t.accept()
	return errors.Join(err, t.Close())
}

func (t *Transport) accept() error {
	delay := time.Duration(0)
	for {
		conn, err := t.cfg.Listener.Accept()
		switch {
		case err == nil:
			delay = 0
			tune(conn)
			if !t.spawn(func() { t.serve(conn) }) {
				_ = conn.Close()
			}
		case t.isClosed():
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("accept from nodes: %w", err)
		default: // out of descriptors, say: it passes
			delay = min(max(2*delay, 5*time.Millisecond), time.Second)
			t.cfg.Log.Warn("accept from nodes", zap.Error(err))
			t.sleep(delay)
		}
	}
}

// serve brings one accepted connection through its handshake and hands it on.
func (t *Transport) serve(conn net.Conn) {
	entry := t.pending.add(conn)
	admit := func() { t.pending.remove(entry) } // from then on it is not evicted
	defer admit()
	if t.isClosed() {
		_ = conn.Close()
		return
	}
	_ = conn.SetDeadline(time.Now().Add(handshakeTimeout))
	tc := tls.Server(conn, &tls.Config{MinVersion: tls.VersionTLS13, GetConfigForClient: t.serverConfig})
	if err := tc.HandshakeContext(context.Background()); err != nil {
		_ = conn.Close()
		t.cfg.Log.Debug("handshake", zap.Stringer("from", conn.RemoteAddr()), zap.Error(err))
		return
	}
	state := tc.ConnectionState()
	if state.NegotiatedProtocol == protoJoin {
		t.serveJoin(tc, admit)
		return
	}
	node, err := t.identify(state, x509.ExtKeyUsageClientAuth)
	if err != nil {
		_ = conn.Close()
		return
	}
	if state.NegotiatedProtocol == protoRaft {
		err = t.serveRaft(node, tc, admit)
	} else {
		err = t.serveMux(node, tc, conn, admit)
	}
	if err != nil {
		t.cfg.Log.Debug("connection refused", zap.String("peer", node), zap.Error(err))
	}
}

func (t *Transport) identify(s tls.ConnectionState, usage x509.ExtKeyUsage) (string, error) {
	return ca.Verify(t.cfg.Roots(), t.cfg.ClusterID, s.PeerCertificates, t.cfg.Now(), usage)
}

// Close ends every connection and waits for all that the Transport runs,
// handlers included.
func (t *Transport) Close() error {
	t.close()
	t.running.Wait()
	return nil
}

func (t *Transport) close() {
	t.closing.Do(func() {
		t.mu.Lock()
		t.closed = true
		peers := make([]string, 0, len(t.peers))
		for id := range t.peers {
			peers = append(peers, id)
		}
		t.mu.Unlock()
		close(t.done)
		_ = t.cfg.Listener.Close()
		t.pending.closeAll()
		t.raft.closeAll()
		for _, id := range peers {
			t.Disconnect(id)
		}
	})
}

// allowed is asked once a connection is on record, so that it cannot slip past
// a Disconnect or Close of the same moment.
func (t *Transport) allowed(node string) error {
	if t.isClosed() {
		return errClosed
	}
	return t.cfg.Member(node)
}

func (t *Transport) isClosed() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.closed
}

// spawn runs f in a goroutine that Close waits for. It answers false after
// Close.
func (t *Transport) spawn(f func()) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return false
	}
	t.running.Go(f)
	return true
}

func (t *Transport) sleep(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-t.done:
	}
}
