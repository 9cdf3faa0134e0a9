package edge

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"sync"
	"testing"

	"github.com/bulkhead-ai/bulkhead/cluster/transport"
	"github.com/bulkhead-ai/bulkhead/cluster/transport/ca"
)

// realFabric is cluster/transport over TLS on loopback.
type realFabric struct {
	tb   testing.TB
	ca   *ca.CA
	pool *x509.CertPool

	mu    sync.Mutex
	addrs map[string]string
	stop  map[string]func()
}

func newRealFabric(tb testing.TB) *realFabric {
	tb.Helper()
	authority, err := ca.New("c1")
	if err != nil {
		tb.Fatal(err)
	}
	pool, err := ca.Roots(authority.CertPEM())
	if err != nil {
		tb.Fatal(err)
	}
	return &realFabric{tb: tb, ca: authority, pool: pool, addrs: map[string]string{}, stop: map[string]func(){}}
}

func (f *realFabric) certificate(id string) *tls.Certificate {
	key, err := ca.NewKey()
	if err != nil {
		f.tb.Fatal(err)
	}
	csr, err := ca.NewCSR(key)
	if err != nil {
		f.tb.Fatal(err)
	}
	chain, err := f.ca.Sign(csr, id, ca.NodeTTL)
	if err != nil {
		f.tb.Fatal(err)
	}
	cert, err := ca.Identity(chain, key)
	if err != nil {
		f.tb.Fatal(err)
	}
	return cert
}

func (f *realFabric) attach(id string) endpoint {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		f.tb.Fatal(err)
	}
	cert := f.certificate(id)
	tr, err := transport.New(transport.Config{
		ClusterID: "c1", NodeID: id, Listener: l,
		Identity: func() *tls.Certificate { return cert },
		Roots:    func() *x509.CertPool { return f.pool },
		Member: func(node string) error {
			if _, ok := f.addr(node); !ok {
				return errors.New("is no member")
			}
			return nil
		},
		Resolve: f.addr,
	})
	if err != nil {
		f.tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- tr.Run(ctx) }()
	stop := sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			f.tb.Errorf("transport of %s: %v", id, err)
		}
	})
	f.tb.Cleanup(stop)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.addrs[id], f.stop[id] = l.Addr().String(), stop
	return tr
}

func (f *realFabric) addr(id string) (string, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	addr, ok := f.addrs[id]
	return addr, ok
}

func (f *realFabric) cut(id string) {
	f.mu.Lock()
	stop := f.stop[id]
	f.mu.Unlock()
	stop()
}

// onBoth runs a story over the transport that nodes use, and over plain streams
// whose Close ends one side only.
func onBoth(t *testing.T, story func(t *testing.T, wires fabric)) {
	t.Run("transport", func(t *testing.T) { story(t, newRealFabric(t)) })
	t.Run("plain", func(t *testing.T) { story(t, newPlainFabric(t)) })
}
