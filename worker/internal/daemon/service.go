package daemon

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/bulkhead-ai/bulkhead/worker/control"
	"github.com/bulkhead-ai/bulkhead/worker/internal/adapters"
	"github.com/bulkhead-ai/bulkhead/worker/internal/chat"
	"github.com/bulkhead-ai/bulkhead/worker/internal/lockdown"
	"github.com/bulkhead-ai/bulkhead/worker/internal/upstream"

	"go.uber.org/zap"
)

// The defaults of control.Tuning.
const (
	defaultMemory          = 192 << 20
	defaultMaxBody         = 32 << 20
	defaultQueueTimeout    = 30 * time.Second
	defaultKeepAlive       = 15 * time.Second
	defaultReceiptInterval = time.Second
)

// bodyShare is the part of the memory that bodies may take: each is held once
// as it came and once as it goes upstream, and garbage of both takes as much.
const bodyShare = 6

// settleGrace bounds the wait for requests that were cut to close their books.
const settleGrace = 5 * time.Second

// service is what serves while an epoch lasts.
type service struct {
	w        *worker
	handler  *chat.Handler
	running  running
	requests *http.Server
	queries  *http.Server
	broker   *control.Broker
	pool     *upstream.Pool
	adapters *adapters.Registry
	stop     chan struct{} // ends the receipt loop
	stopped  chan struct{}
}

// sockets are what a worker was handed beside its control socket.
type sockets struct {
	requests, queries net.Listener
	broker            *control.BrokerConn
}

// inherited opens the descriptors that the process was born with.
func inherited() (s sockets, err error) {
	if s.requests, err = listener(control.FDRequests, "requests"); err != nil {
		return s, err
	}
	if s.queries, err = listener(control.FDQueries, "queries"); err != nil {
		return s, err
	}
	if s.broker, err = control.FileBrokerConn(os.NewFile(control.FDBroker, "broker")); err != nil {
		return s, fmt.Errorf("open broker socket: %w", err)
	}
	return s, nil
}

func newService(w *worker) (*service, error) {
	socks, err := w.sockets()
	if err != nil {
		return nil, err
	}
	s := &service{w: w, broker: control.NewBroker(socks.broker), stop: make(chan struct{}), stopped: make(chan struct{})}
	s.pool = upstream.New(s.broker, w.lease, roots(w.start.CABundle))
	s.adapters = adapters.New(adapters.Config{
		Broker: s.broker, TempDir: filepath.Join(lockdown.DataPath(w.start.Sandbox, lockdown.Worker), "tmp"),
		SocketDir: pluginSockets(w.start.Sandbox), Log: w.log,
	})
	t := w.start.Tuning
	maxBody := or(t.MaxBodyBytes, defaultMaxBody)
	s.handler = chat.New(chat.Config{
		Tenant: w.start.Tenant, Policy: &w.start.Policy, Books: w.books, Adapters: s.adapters, Upstreams: s.pool,
		MaxBody: maxBody, Bodies: max(maxBody, or(t.MemoryBytes, defaultMemory)/bodyShare), QueueTime: or(t.QueueTimeout, defaultQueueTimeout),
		KeepAlive: or(t.KeepAlive, defaultKeepAlive), Log: w.log,
	})
	errorLog := zap.NewStdLog(w.log.Named("http"))
	s.requests = &http.Server{Handler: s.running.count(s.handler), ErrorLog: errorLog, MaxHeaderBytes: 64 << 10}
	s.queries = &http.Server{Handler: newQueries(w.books, w.log), ErrorLog: errorLog, ReadHeaderTimeout: 5 * time.Second}
	s.serve(s.requests, socks.requests)
	s.serve(s.queries, socks.queries)
	w.background.Go(func() { s.sendReceipts(or(t.ReceiptInterval, defaultReceiptInterval)) })
	return s, nil
}

func (s *service) serve(srv *http.Server, l net.Listener) {
	s.w.background.Go(func() {
		if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			s.w.log.Error("stop serving", zap.Error(err))
		}
	})
}

func (s *service) setPolicy(p *control.Policy) {
	s.handler.SetPolicy(p)
	s.adapters.Keep(p.Providers)
}

// close refuses new requests, lets the running ones finish within ctx, and
// sends the last receipts.
func (s *service) close(ctx context.Context) {
	s.handler.Drain()
	if err := s.requests.Shutdown(ctx); err != nil {
		s.requests.Close()
		s.running.wait(settleGrace)
	}
	s.queries.Close()
	close(s.stop)
	<-s.stopped
	s.adapters.Close()
	s.pool.Close()
	s.broker.Close()
}

// sendReceipts sends signed batches whenever receipts wait, at the latest after
// interval. One batch is under way at a time; the supervisor's Ack frees the
// next. At the end whatever is left is sent without waiting: should it be lost,
// the next epoch sends it again.
func (s *service) sendReceipts(interval time.Duration) {
	defer close(s.stopped)
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-s.stop:
			for s.sendBatch(true) {
			}
			return
		case <-tick.C:
		case <-s.w.books.BatchDue():
		}
		s.sendBatch(false)
	}
}

func (s *service) sendBatch(last bool) bool {
	raw, err := s.w.books.NextBatch(s.w.signer, last)
	if err != nil {
		s.w.log.Error("seal receipts", zap.Error(err))
		return false
	}
	if raw == nil {
		return false
	}
	if err := s.w.control.Send(control.TypeReceipts, raw); err != nil {
		s.w.log.Warn("send receipts", zap.Error(err))
		return false
	}
	return true
}

func listener(fd uintptr, name string) (net.Listener, error) {
	f := os.NewFile(fd, name)
	defer f.Close()
	l, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("open %s socket: %w", name, err)
	}
	return l, nil
}

func roots(pem []byte) *x509.CertPool {
	if len(pem) == 0 {
		return nil
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	return pool
}

// pluginSockets is the directory that a plugin of this worker has its socket in,
// as the plugin sees it.
func pluginSockets(s control.Sandbox) string {
	return lockdown.DataPath(control.Sandbox{Namespaces: s.Namespaces}, lockdown.Plugin)
}

// or returns v, or def when v is zero.
func or[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}
