package transport

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/bulkhead-ai/bulkhead/cluster/transport/ca"
	"go.uber.org/zap"
)

// The protocols of the port, as ALPN names.
const (
	protoRaft = "bh-raft/1"
	protoMux  = "bh-mux/1"
	protoJoin = "bh-join/1"
)

const (
	handshakeTimeout = 5 * time.Second // from accept or dial to admission
	connectTimeout   = 2 * time.Second // of the TCP connection alone: a lost SYN is repeated after 1 s
	minBackoff       = 100 * time.Millisecond
	maxBackoff       = time.Second // a healed network is found within about this and connectTimeout
)

// Config is what a Transport is made with. Callbacks are called from any
// goroutine, at every handshake, and must be quick.
type Config struct {
	ClusterID string // required
	NodeID    string // required; this node

	Identity func() *tls.Certificate          // required: this node's certificate, the root after it; see ca.Identity
	Roots    func() *x509.CertPool            // required: who signs nodes' certificates
	Member   func(node string) error          // required: nil if the node may be talked to
	Resolve  func(node string) (string, bool) // required: host:port of a node

	Listener net.Listener                                             // required; the Transport closes it
	Dial     func(ctx context.Context, addr string) (net.Conn, error) // nil: TCP
	Now      func() time.Time                                         // for the validity of certificates; nil: time.Now
	Log      *zap.Logger                                              // nil: no log
}

func (c Config) withDefaults() (Config, error) {
	switch {
	case c.ClusterID == "":
		return c, errors.New("no cluster id")
	case !ca.ValidNode(c.NodeID):
		return c, fmt.Errorf("node id %q is none", c.NodeID)
	case c.Identity == nil || c.Roots == nil || c.Member == nil || c.Resolve == nil:
		return c, errors.New("a callback is missing")
	case c.Listener == nil:
		return c, errors.New("no listener")
	}
	if c.Dial == nil {
		c.Dial = dialTCP
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = zap.NewNop()
	}
	return c, nil
}
