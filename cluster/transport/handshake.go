package transport

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"slices"
)

// serverConfig decides by what the client offers. The join protocol and the
// members' protocols are never on offer together, so that a connection without
// a client certificate cannot become a member's.
func (t *Transport) serverConfig(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	cfg, err := t.baseConfig()
	if err != nil {
		return nil, err
	}
	offers := func(p string) bool { return slices.Contains(hello.SupportedProtos, p) }
	switch {
	case offers(protoRaft) || offers(protoMux):
		cfg.NextProtos = []string{protoRaft, protoMux}
		cfg.ClientAuth = tls.RequireAnyClientCert // VerifyConnection checks it
		cfg.VerifyConnection = func(s tls.ConnectionState) error {
			_, err := t.verify(s, x509.ExtKeyUsageClientAuth)
			return err
		}
	case offers(protoJoin):
		cfg.NextProtos = []string{protoJoin}
	default:
		return nil, errors.New("client offers no protocol of this port")
	}
	return cfg, nil
}

func (t *Transport) clientConfig(node, proto string) (*tls.Config, error) {
	cfg, err := t.baseConfig()
	if err != nil {
		return nil, err
	}
	cfg.NextProtos = []string{proto}
	cfg.InsecureSkipVerify = true // names of hosts mean nothing here: VerifyConnection checks all
	cfg.VerifyConnection = func(s tls.ConnectionState) error {
		got, err := t.verify(s, x509.ExtKeyUsageServerAuth)
		switch {
		case err != nil:
			return err
		case got != node:
			return fmt.Errorf("node %q answers in the place of %q", got, node)
		case s.NegotiatedProtocol != proto:
			return fmt.Errorf("peer does not speak %s", proto)
		}
		return nil
	}
	return cfg, nil
}

func (t *Transport) baseConfig() (*tls.Config, error) {
	id := t.cfg.Identity()
	if id == nil {
		return nil, errors.New("this node has no certificate")
	}
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		Certificates:           []tls.Certificate{*id},
		GetClientCertificate:   func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return id, nil },
		SessionTicketsDisabled: true, // every connection shows its certificate
		Time:                   t.cfg.Now,
	}, nil
}

// verify answers who the other end is, if it may be talked to.
func (t *Transport) verify(s tls.ConnectionState, usage x509.ExtKeyUsage) (string, error) {
	node, err := t.identify(s, usage)
	if err != nil {
		return "", err
	}
	if node == t.cfg.NodeID {
		return "", errors.New("certificate of this very node")
	}
	if err := t.cfg.Member(node); err != nil {
		return "", fmt.Errorf("node %s: %w", node, err)
	}
	return node, nil
}

// dialTLS connects to a node up to the end of the TLS handshake, in which the
// peer may not yet have looked at our certificate.
func (t *Transport) dialTLS(ctx context.Context, node, proto string) (*tls.Conn, error) {
	if node == t.cfg.NodeID {
		return nil, errors.New("that is this node")
	}
	if err := t.cfg.Member(node); err != nil {
		return nil, err
	}
	addr, ok := t.cfg.Resolve(node)
	if !ok {
		return nil, errors.New("no address is known")
	}
	cfg, err := t.clientConfig(node, proto)
	if err != nil {
		return nil, err
	}
	conn, err := t.connect(ctx, addr)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", addr, err)
	}
	tc := tls.Client(conn, cfg)
	if err := tc.HandshakeContext(ctx); err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("handshake with %s: %w", addr, refusal(err))
	}
	return tc, nil
}

func (t *Transport) connect(ctx context.Context, addr string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	conn, err := t.cfg.Dial(ctx, addr)
	if err != nil {
		return nil, err
	}
	tune(conn)
	return conn, nil
}

// refusal marks errors that the peer sent as a TLS alert.
func refusal(err error) error {
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "remote error" {
		return fmt.Errorf("%w: %w", ErrRefused, err)
	}
	return err
}
