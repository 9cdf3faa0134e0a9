package transport

import (
	"errors"
	"fmt"
	"time"

	"github.com/bulkhead-ai/bulkhead"
)

var (
	// ErrUnreachable says that nothing was sent: there is no connection to the
	// node. It is wrapped in a *bulkhead.Error of the kind Unavailable with the
	// code node_unreachable.
	ErrUnreachable = errors.New("node cannot be reached")

	// ErrNoAnswer says that a call was sent and not answered: it may have been
	// carried out, or may yet be.
	ErrNoAnswer = errors.New("sent, but no answer")

	// ErrBroken is how a stream ends whose connection broke, whether or not the
	// peer had written all it wanted.
	ErrBroken = errors.New("connection between the nodes broke")

	// ErrPeerClosed is how a write ends when the peer has closed the stream.
	ErrPeerClosed = errors.New("peer closed the stream")

	// ErrRefused says that the peer does not let this node in: its certificate
	// is expired or of another cluster, or the peer does not know this node (any
	// more).
	ErrRefused = errors.New("peer refused this node")
)

const retryUnreachable = time.Second

func unreachable(node string, cause error) error {
	e := bulkhead.E(bulkhead.Unavailable, "node_unreachable", "A node of the cluster cannot be reached now.")
	e.RetryAfter = retryUnreachable
	return e.With(fmt.Errorf("%w: %s: %w", ErrUnreachable, node, cause))
}

var errClosed = errors.New("transport is closed")
