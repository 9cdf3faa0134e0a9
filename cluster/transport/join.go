package transport

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/transport/ca"
	"go.uber.org/zap"
)

const (
	maxJoins       = 4 // served at a time
	maxJoinRequest = 64 << 10
	maxJoinAnswer  = 1 << 20
	joinTime       = 30 * time.Second // of a handler
)

// JoinRequest is what a node says that wants to join. Nothing of it is true
// because it says so: who handles it checks Proof against the Exporter and the
// token's key (ca.VerifyProof) before anything else.
type JoinRequest struct {
	Token   string          `json:"token"` // its id
	Node    string          `json:"node"`  // the id that the joiner wants
	CSR     []byte          `json:"csr"`   // DER
	Proof   []byte          `json:"proof"`
	Payload json.RawMessage `json:"payload,omitempty"` // up to the two ends

	Exporter []byte `json:"-"` // of this connection, as this end sees it
	Remote   string `json:"-"` // the joiner's address
}

// JoinAnswer is what a joiner gets. It goes to nobody but the holder of the
// token, encrypted.
type JoinAnswer struct {
	Chain   []byte          `json:"chain"`             // PEM: the node's certificate, then its root
	Roots   []byte          `json:"roots"`             // PEM: all that are trusted
	Payload json.RawMessage `json:"payload,omitempty"` // up to the two ends
}

type joinReply struct {
	Answer *JoinAnswer `json:"answer,omitempty"`
	Error  *callError  `json:"error,omitempty"`
}

// JoinHandler decides about a joiner. Its error goes to the joiner as a
// *bulkhead.Error without detail.
type JoinHandler = func(context.Context, JoinRequest) (JoinAnswer, error)

// HandleJoin lets nodes join through this one. Without it they are refused.
func (t *Transport) HandleJoin(f JoinHandler) {
	t.handlers.mu.Lock()
	defer t.handlers.mu.Unlock()
	t.handlers.join = f
}

// serveJoin hears a joiner out while it is still among those that make room for
// others, so that saying nothing blocks nobody.
func (t *Transport) serveJoin(tc *tls.Conn, admit func()) {
	defer func() { _ = tc.Close() }()
	req, err := readJoin(tc)
	if err != nil {
		t.cfg.Log.Debug("join", zap.Stringer("from", tc.RemoteAddr()), zap.Error(err))
		return
	}
	var reply joinReply
	select {
	case t.joins <- struct{}{}:
		defer func() { <-t.joins }()
		admit()
		_ = tc.SetDeadline(time.Now().Add(joinTime + handshakeTimeout))
		reply = t.decideJoin(req)
	default:
		busy := bulkhead.E(bulkhead.Unavailable, "node_busy", "Other nodes are joining; try again.")
		reply.Error = encodeError(busy)
	}
	raw, err := json.Marshal(reply)
	if err != nil || len(raw) > maxJoinAnswer {
		t.cfg.Log.Error("answer a join", zap.Int("bytes", len(raw)), zap.Error(err))
		return
	}
	_, _ = tc.Write(appendFrame(nil, raw)) // the joiner sees when it is cut off
}

func readJoin(tc *tls.Conn) (req JoinRequest, err error) {
	raw, err := readFrame(tc, maxJoinRequest)
	if err != nil {
		return req, err
	}
	if err := json.Unmarshal(raw, &req); err != nil {
		return req, fmt.Errorf("read a join request: %w", err)
	}
	req.Remote = tc.RemoteAddr().String()
	req.Exporter, err = exporter(tc.ConnectionState())
	return req, err
}

func exporter(s tls.ConnectionState) ([]byte, error) {
	out, err := s.ExportKeyingMaterial(ca.ExporterLabel, nil, ca.ExporterBytes)
	if err != nil {
		return nil, fmt.Errorf("export keying material: %w", err)
	}
	return out, nil
}

func (t *Transport) decideJoin(req JoinRequest) (reply joinReply) {
	ctx, cancel := context.WithTimeout(context.Background(), joinTime)
	defer cancel()
	t.spawn(func() {
		select {
		case <-t.done:
			cancel()
		case <-ctx.Done():
		}
	})
	answer, err := t.join(ctx, req)
	if err != nil {
		t.cfg.Log.Warn("join refused", zap.String("node", req.Node), zap.String("from", req.Remote), zap.Error(err))
		reply.Error = encodeError(err)
		reply.Error.Detail = "" // it may be anybody
		return reply
	}
	reply.Answer = &answer
	return reply
}

func (t *Transport) join(ctx context.Context, req JoinRequest) (JoinAnswer, error) {
	t.handlers.mu.RLock()
	f := t.handlers.join
	t.handlers.mu.RUnlock()
	if f == nil {
		return JoinAnswer{}, bulkhead.E(bulkhead.Unavailable, "join_unavailable", "This node lets nobody join now.")
	}
	return f(ctx, req)
}
