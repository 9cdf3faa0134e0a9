package steward

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"github.com/bulkhead-ai/bulkhead/cluster/state"
	"github.com/bulkhead-ai/bulkhead/cluster/transport"
	"github.com/bulkhead-ai/bulkhead/cluster/transport/ca"
	"go.uber.org/zap"
)

// JoinAnswer is the payload of the answer to a node that joins; the payload of its
// request is its command.Node. It holds the cluster key: it goes to a machine that
// proved the token, over a connection to a node that it has verified.
type JoinAnswer struct {
	ClusterKey []byte         `json:"cluster_key"`
	AdminToken string         `json:"admin_token"` // the command line's, the same on every node
	Node       command.Node   `json:"node"`        // as the cluster knows it
	Peers      []command.Node `json:"peers"`       // all members
}

// Admit takes in a machine that proves a join token; it is the transport's join
// handler. It works on every node. The token is consumed by the command that takes
// the node in, so of two that use one token, one is refused. A joiner whose
// connection breaks after that needs another token.
func (s *Steward) Admit(ctx context.Context, req transport.JoinRequest) (transport.JoinAnswer, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*proposeFor)
	defer cancel()
	if err := s.verifyToken(ctx, req); err != nil {
		return transport.JoinAnswer{}, err
	}
	var node command.Node
	if err := json.Unmarshal(req.Payload, &node); err != nil || node.ID != req.Node {
		e := bulkhead.E(bulkhead.InvalidRequest, "invalid_join", "The request does not describe the node.")
		return transport.JoinAnswer{}, e.With(err)
	}
	c, ok := s.raft.State().Cluster()
	if !ok {
		return transport.JoinAnswer{}, bulkhead.E(bulkhead.Conflict, "no_cluster", "This node is not in a cluster.")
	}
	// First what can fail for reasons of its own: that must not cost the token.
	key, err := s.cfg.ClusterKey()
	if err != nil {
		return transport.JoinAnswer{}, fmt.Errorf("cluster key: %w", err)
	}
	token, err := s.cfg.AdminToken()
	if err != nil {
		return transport.JoinAnswer{}, fmt.Errorf("admin token: %w", err)
	}
	chain, err := s.signing.sign(c, req.CSR, req.Node)
	if err != nil {
		return transport.JoinAnswer{}, err
	}
	return s.takeIn(ctx, req.Token, node, JoinAnswer{ClusterKey: key, AdminToken: token}, transport.JoinAnswer{Chain: chain, Roots: c.CACert})
}

func (s *Steward) takeIn(ctx context.Context, token string, n command.Node, a JoinAnswer, t transport.JoinAnswer) (transport.JoinAnswer, error) {
	result, err := s.raft.Propose(ctx, &command.JoinNode{Token: token, Node: n})
	if err != nil {
		return transport.JoinAnswer{}, err
	}
	var ok bool
	if a.Node, ok = result.(command.Node); !ok {
		return transport.JoinAnswer{}, fmt.Errorf("join of %s: result of type %T", n.ID, result)
	}
	a.Peers = s.raft.State().Nodes()
	if t.Payload, err = json.Marshal(a); err != nil {
		return transport.JoinAnswer{}, fmt.Errorf("join of %s: encode the answer: %w", n.ID, err)
	}
	s.cfg.Log.Info("node joined the cluster", zap.String("node", n.ID), zap.String("addr", n.Addr))
	return t, nil
}

// verifyToken says the same of a token that never was and of a wrong proof. A
// token that was made a moment ago on another node is waited for.
func (s *Steward) verifyToken(ctx context.Context, req transport.JoinRequest) error {
	token, ok := s.raft.State().JoinToken(req.Token)
	if !ok {
		ctx, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		if s.raft.WaitApplied(ctx, s.Status(ctx).Index) == nil {
			token, ok = s.raft.State().JoinToken(req.Token)
		}
	}
	if !ok || !ca.VerifyProof(token.Key, req.Exporter, req.Proof) {
		return bulkhead.E(bulkhead.PermissionDenied, "token_unknown", "The join token is not valid.")
	}
	return nil
}

// signer keeps the authority open as long as it stays the same.
type signer struct {
	open func(state.Cluster) (*ca.CA, error)

	mu   sync.Mutex
	of   string // sealed key
	root *ca.CA
}

func (g *signer) sign(c state.Cluster, csr []byte, node string) ([]byte, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.root == nil || g.of != string(c.CAKey) {
		root, err := g.open(c)
		if err != nil {
			return nil, fmt.Errorf("open the cluster's authority: %w", err)
		}
		g.root, g.of = root, string(c.CAKey)
	}
	chain, err := g.root.Sign(csr, node, ca.NodeTTL)
	if err != nil {
		return nil, bulkhead.E(bulkhead.InvalidRequest, "invalid_csr", "The certificate request cannot be signed.").With(err)
	}
	return chain, nil
}
