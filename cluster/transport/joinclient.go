package transport

import (
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/bulkhead-ai/bulkhead/cluster/transport/ca"
)

// JoinConfig is what Join is called with.
type JoinConfig struct {
	Addr    string            // host:port of a node of the cluster
	Token   ca.Token          // from an operator of the cluster
	Node    string            // the id that this node wants
	Key     *ecdsa.PrivateKey // this node's; it is not sent
	Payload any               // JSON, up to the two ends; nil: none

	Dial func(ctx context.Context, addr string) (net.Conn, error) // nil: TCP
	Now  func() time.Time                                         // nil: time.Now
}

// Joined is what a node that has joined holds.
type Joined struct {
	JoinAnswer
	ClusterID string
}

// Join asks a node to be taken into its cluster. The node must belong to the
// cluster that the token pins, and the answer must be a certificate for Node,
// Key and that cluster, or nothing of it is believed. The token's secret is not
// sent, only a proof that holds for this connection alone.
//
// Errors: the cluster's *bulkhead.Error; ErrNoAnswer when the request was sent
// and the outcome is not known (the token may be used up); any other error
// before that.
func Join(ctx context.Context, cfg JoinConfig) (Joined, error) {
	if cfg.Dial == nil {
		cfg.Dial = dialTCP
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	j, err := join(ctx, &cfg)
	if err != nil {
		return Joined{}, fmt.Errorf("join the cluster through %s: %w", cfg.Addr, err)
	}
	return j, nil
}

func join(ctx context.Context, cfg *JoinConfig) (Joined, error) {
	req, err := cfg.request()
	if err != nil {
		return Joined{}, err
	}
	tc, j, pinned, err := cfg.connect(ctx)
	if err != nil {
		return j, err
	}
	defer func() { _ = tc.NetConn().Close() }()
	stop := context.AfterFunc(ctx, func() { _ = tc.NetConn().Close() })
	defer stop()
	exp, err := exporter(tc.ConnectionState())
	if err != nil {
		return j, err
	}
	req.Proof = cfg.Token.Prove(exp)
	raw, err := json.Marshal(req)
	if err != nil {
		return j, fmt.Errorf("encode: %w", err)
	}
	if len(raw) > maxJoinRequest {
		return j, errTooLarge
	}
	reply, err := askJoin(ctx, tc, raw)
	switch {
	case err != nil:
		return j, fmt.Errorf("%w: %w", ErrNoAnswer, err)
	case reply.Error != nil:
		return j, reply.Error.decode(cfg.Addr)
	case reply.Answer == nil:
		return j, fmt.Errorf("%w: it was empty", ErrNoAnswer)
	}
	j.JoinAnswer = *reply.Answer
	return j, cfg.check(&j, pinned)
}

func (cfg *JoinConfig) request() (req JoinRequest, err error) {
	req.Token, req.Node = cfg.Token.ID, cfg.Node
	if !ca.ValidNode(cfg.Node) {
		return req, fmt.Errorf("node id %q is none", cfg.Node)
	}
	if req.CSR, err = ca.NewCSR(cfg.Key); err != nil {
		return req, err
	}
	if cfg.Payload != nil {
		if req.Payload, err = json.Marshal(cfg.Payload); err != nil {
			return req, fmt.Errorf("encode: %w", err)
		}
	}
	return req, nil
}

// connect answers the connection and the pinned root in PEM.
func (cfg *JoinConfig) connect(ctx context.Context) (tc *tls.Conn, j Joined, root []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	conn, err := cfg.Dial(ctx, cfg.Addr)
	if err != nil {
		return nil, j, nil, fmt.Errorf("connect: %w", err)
	}
	tune(conn)
	tc = tls.Client(conn, &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{protoJoin}, Time: cfg.Now,
		InsecureSkipVerify: true, // VerifyConnection checks by the token's pin
		VerifyConnection: func(s tls.ConnectionState) (err error) {
			if s.NegotiatedProtocol != protoJoin {
				return errors.New("server does not let nodes join")
			}
			j.ClusterID, root, err = ca.VerifyPinned(cfg.Token.CA, s.PeerCertificates, cfg.Now())
			return err
		},
	})
	if err := tc.HandshakeContext(ctx); err != nil {
		_ = conn.Close()
		return nil, j, nil, fmt.Errorf("handshake: %w", refusal(err))
	}
	return tc, j, root, nil
}

func askJoin(ctx context.Context, tc *tls.Conn, request []byte) (reply joinReply, err error) {
	deadline := time.Now().Add(joinTime + 2*handshakeTimeout)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	if err := tc.SetDeadline(deadline); err != nil {
		return reply, err
	}
	if _, err := tc.Write(appendFrame(nil, request)); err != nil {
		return reply, fmt.Errorf("ask: %w", err)
	}
	raw, err := readFrame(tc, maxJoinAnswer)
	if err != nil {
		return reply, err
	}
	if err := json.Unmarshal(raw, &reply); err != nil {
		return reply, fmt.Errorf("read the answer: %w", err)
	}
	return reply, nil
}

// check looks through the answer before anything is built on it.
func (cfg *JoinConfig) check(j *Joined, pinned []byte) error {
	roots, err := ca.Roots(j.Roots)
	if err != nil {
		return err
	}
	known, err := ca.Roots(pinned)
	if err != nil {
		return err
	}
	id, err := ca.Identity(j.Chain, cfg.Key)
	if err != nil {
		return err
	}
	for _, pool := range []*x509.CertPool{roots, known} {
		node, err := ca.Verify(pool, j.ClusterID, []*x509.Certificate{id.Leaf}, cfg.Now(), x509.ExtKeyUsageClientAuth)
		if err != nil {
			return fmt.Errorf("the cluster's answer: %w", err)
		}
		if node != cfg.Node {
			return fmt.Errorf("the cluster's answer is a certificate for node %q", node)
		}
	}
	return nil
}
