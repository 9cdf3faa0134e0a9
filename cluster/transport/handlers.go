package transport

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"sync"

	"github.com/bulkhead-ai/bulkhead"
)

// StreamHandler serves one stream, which is closed when it returns. The context
// ends when the peer has closed the stream or is gone; it may have written
// something before. It must return soon after: Close waits for it. c is a Stream.
type StreamHandler = func(ctx context.Context, peer string, c net.Conn)

// CallHandler answers one call. Its error goes to the caller as a
// *bulkhead.Error; one that is none becomes Internal. The context has the
// caller's deadline and ends when the caller gives up. It may be called again
// for a call that was repeated.
type CallHandler = func(ctx context.Context, peer string, in json.RawMessage) (any, error)

// handlers is who serves what.
type handlers struct {
	mu      sync.RWMutex
	streams map[string]StreamHandler
	calls   map[string]CallHandler
	join    JoinHandler
}

func (h *handlers) stream(service string) StreamHandler {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.streams[service]
}

func (h *handlers) call(method string) CallHandler {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.calls[method]
}

// HandleStream serves a service: 1 to 64 of a-z, 0-9, - and /. It panics on
// another name and on one that is taken, which are mistakes of the program.
func (t *Transport) HandleStream(service string, f StreamHandler) {
	if !validService(service) || service == stopService || service == callService {
		panic(fmt.Sprintf("transport: bad service name %q", service))
	}
	t.handlers.setStream(service, f)
}

func (h *handlers) setStream(service string, f StreamHandler) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.streams == nil {
		h.streams = map[string]StreamHandler{}
	}
	if h.streams[service] != nil {
		panic(fmt.Sprintf("transport: service %q has a handler", service))
	}
	h.streams[service] = f
}

// HandleCall serves a method; names are as in HandleStream.
func (t *Transport) HandleCall(method string, f CallHandler) {
	if !validService(method) {
		panic(fmt.Sprintf("transport: bad method name %q", method))
	}
	h := &t.handlers
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.calls == nil {
		h.calls = map[string]CallHandler{}
	}
	if h.calls[method] != nil {
		panic(fmt.Sprintf("transport: method %q has a handler", method))
	}
	h.calls[method] = f
}

// Open begins a stream with a node's service. A node that cannot be reached:
// ErrUnreachable, after about 5 s at the most, at once while it is known to be
// so. That the node does not offer the service, a Read tells. The connection is
// a Stream.
func (t *Transport) Open(ctx context.Context, node, service string) (net.Conn, error) {
	if !validService(service) {
		return nil, bulkhead.E(bulkhead.Internal, "bad_service", "The gateway failed to handle the request.")
	}
	return t.open(ctx, node, service)
}

func (t *Transport) open(ctx context.Context, node, service string) (*stream, error) {
	s, err := t.session(ctx, node)
	if err != nil {
		return nil, unreachable(node, err)
	}
	c, err := s.openStream(service)
	if err != nil {
		return nil, unreachable(node, err)
	}
	return c, nil
}
