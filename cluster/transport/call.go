package transport

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"go.uber.org/zap"
)

// A call is a stream of its own: the caller sends two frames (callHead, the
// input) and gets two (answerHead, the output).
const (
	maxCallHead = 16 << 10
	requestTime = time.Minute // for the caller to send it all
)

type callHead struct {
	Method    string `json:"method"`
	TimeoutMS int64  `json:"timeout_ms,omitempty"` // 0: none
}

type answerHead struct {
	Error *callError `json:"error,omitempty"`
}

// Call asks a node and waits for its answer. in and out are JSON; out may be
// nil. Input and output are at most 16 MiB. Without a deadline in ctx it waits as
// long as the node lives. A call to this very node runs its handler.
//
// Errors: the handler's *bulkhead.Error, with kind, code, message, param and
// RetryAfter; ErrUnreachable, then it was not carried out; or ErrNoAnswer, in a
// *bulkhead.Error of the kind Unavailable with the code no_answer.
func (t *Transport) Call(ctx context.Context, node, method string, in, out any) error {
	raw, err := encode(in)
	if err != nil {
		return fmt.Errorf("call %s: %w", method, err)
	}
	var answer []byte
	if node == t.cfg.NodeID {
		answer, err = t.callSelf(ctx, method, raw)
	} else {
		answer, err = t.call(ctx, node, method, raw)
	}
	if err != nil {
		return fmt.Errorf("call %s: %w", method, err)
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(answer, out); err != nil {
		return fmt.Errorf("call %s: read the answer of %s: %w", method, node, err)
	}
	return nil
}

func encode(v any) ([]byte, error) {
	raw, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode: %w", err)
	}
	if len(raw) > maxMessage {
		return nil, bulkhead.E(bulkhead.TooLarge, "message_too_large", "The message is too large for one call.").
			With(fmt.Errorf("%d bytes: %w", len(raw), errTooLarge))
	}
	return raw, nil
}

func (t *Transport) callSelf(ctx context.Context, method string, in []byte) ([]byte, error) {
	out, err := t.answer(ctx, t.cfg.NodeID, method, in)
	if err != nil {
		return nil, encodeError(err).decode(t.cfg.NodeID)
	}
	return out, nil
}

func (t *Transport) call(ctx context.Context, node, method string, in []byte) ([]byte, error) {
	head := callHead{Method: method}
	if d, ok := ctx.Deadline(); ok {
		head.TimeoutMS = max(time.Until(d).Milliseconds(), 1)
	}
	rawHead, err := json.Marshal(head)
	if err != nil {
		return nil, fmt.Errorf("encode: %w", err)
	}
	c, err := t.open(ctx, node, callService)
	if err != nil {
		return nil, err
	}
	defer func() { _ = c.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	msg := make([]byte, 0, 8+len(rawHead)+len(in))
	answer, err := exchange(c, appendFrame(appendFrame(msg, rawHead), in), node)
	if errors.Is(err, ErrNoAnswer) && ctx.Err() != nil {
		err = noAnswer(node, ctx.Err())
	}
	return answer, err
}

func exchange(c *stream, msg []byte, node string) ([]byte, error) {
	if _, err := c.Write(msg); err != nil && !errors.Is(err, ErrPeerClosed) {
		return nil, noAnswer(node, err)
	}
	rawHead, err := readFrame(c, maxCallHead)
	var refused *bulkhead.Error
	if errors.As(err, &refused) {
		return nil, refused.With(fmt.Errorf("%w: %s does not take it", ErrUnreachable, node))
	}
	if err != nil {
		return nil, noAnswer(node, err)
	}
	var head answerHead
	if err := json.Unmarshal(rawHead, &head); err != nil {
		return nil, noAnswer(node, err)
	}
	if head.Error != nil {
		return nil, head.Error.decode(node)
	}
	answer, err := readFrame(c, maxMessage)
	if err != nil {
		return nil, noAnswer(node, err)
	}
	return answer, nil
}

func noAnswer(node string, cause error) error {
	return bulkhead.E(bulkhead.Unavailable, "no_answer", "A node of the cluster did not answer.").
		With(fmt.Errorf("%w: node %s: %w", ErrNoAnswer, node, cause))
}

// serveCall is the handler of callService.
func (t *Transport) serveCall(ctx context.Context, peer string, c net.Conn) {
	_ = c.SetReadDeadline(time.Now().Add(requestTime))
	head, in, err := readCall(c)
	if err != nil {
		t.cfg.Log.Debug("call", zap.String("peer", peer), zap.Error(err))
		return
	}
	if head.TimeoutMS > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(head.TimeoutMS)*time.Millisecond)
		defer cancel()
	}
	out, err := t.answer(ctx, peer, head.Method, in)
	var answer answerHead
	if err != nil {
		answer.Error = encodeError(err)
	}
	rawHead, err := json.Marshal(answer)
	if err != nil || len(rawHead) > maxCallHead {
		t.cfg.Log.Error("answer a call", zap.String("method", head.Method), zap.Int("bytes", len(rawHead)), zap.Error(err))
		return
	}
	msg := appendFrame(make([]byte, 0, 8+len(rawHead)+len(out)), rawHead)
	if answer.Error == nil {
		msg = appendFrame(msg, out)
	}
	_, _ = c.Write(msg) // a caller that is gone does not want it
}

func readCall(r io.Reader) (head callHead, in []byte, err error) {
	raw, err := readFrame(r, maxCallHead)
	if err != nil {
		return head, nil, err
	}
	if err := json.Unmarshal(raw, &head); err != nil {
		return head, nil, fmt.Errorf("read a call: %w", err)
	}
	in, err = readFrame(r, maxMessage)
	return head, in, err
}

func (t *Transport) answer(ctx context.Context, peer, method string, in []byte) ([]byte, error) {
	h := t.handlers.call(method)
	if h == nil {
		return nil, bulkhead.E(bulkhead.Unavailable, "method_unknown", "A node of the cluster does not offer this call.").
			With(fmt.Errorf("method %q", method))
	}
	out, err := h(ctx, peer, in)
	if err != nil {
		return nil, err
	}
	return encode(out)
}
