package cluster

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"github.com/hashicorp/raft"
)

// ErrUnknownOutcome says that a command may or may not be applied, now or
// later: the deadline passed, or the node lost its leadership or stopped,
// after the command was on its way. Repeating it with ProposeID under the id of
// the UnknownOutcomeError is safe.
var ErrUnknownOutcome = errors.New("unknown whether the command was applied")

// UnknownOutcomeError carries the id under which the command can be repeated.
// errors.Is(err, ErrUnknownOutcome) holds for it.
type UnknownOutcomeError struct {
	ID  string
	Err error // why it is not known
}

func (e *UnknownOutcomeError) Error() string {
	return ErrUnknownOutcome.Error() + " (" + e.ID + "): " + e.Err.Error()
}

// Unwrap implements the errors package's chain.
func (e *UnknownOutcomeError) Unwrap() []error { return []error{ErrUnknownOutcome, e.Err} }

// Propose applies a command under a new id and answers the state machine's
// result; see ProposeID.
func (n *Node) Propose(ctx context.Context, cmd command.Command) (any, error) {
	return n.ProposeID(ctx, "c"+rand.Text(), cmd)
}

// ProposeID applies a command and answers the state machine's result (see
// state.Apply). id names the intention, in 1 to 128 printable ASCII characters:
// a command whose id was applied before is answered and not applied again.
//
// When it returns a result, the command is committed, applied to State and seen
// by OnApply. It waits until the context ends, at most Config.ProposeTimeout.
// Errors: *bulkhead.Error as the state machine refused it; of the kind
// TooLarge; of the kind Unavailable, then the command was not and will not be
// applied; or *UnknownOutcomeError.
func (n *Node) ProposeID(ctx context.Context, id string, cmd command.Command) (any, error) {
	raw, err := command.Encode(cmd, id, time.Now())
	switch {
	case errors.Is(err, command.ErrTooLarge):
		return nil, bulkhead.E(bulkhead.TooLarge, "command_too_large", "The change is too large; split it.").With(err)
	case err != nil:
		return nil, bulkhead.E(bulkhead.InvalidRequest, "invalid_command", "The change cannot be encoded.").With(err)
	}
	ctx, cancel := context.WithTimeout(ctx, n.cfg.ProposeTimeout)
	defer cancel()
	if err := ctx.Err(); err != nil {
		return nil, unavailable(err)
	}
	answer, err := n.enqueue(ctx, raw)
	if err != nil {
		return nil, unavailable(err)
	}
	select {
	case a := <-answer:
		return a.settle(id)
	case <-ctx.Done():
		return nil, &UnknownOutcomeError{id, ctx.Err()}
	}
}

// answer is what became of a command in raft.
type answer struct {
	response any
	err      error
}

// enqueue hands a command to raft and waits for it beside the caller, who may
// lose patience. Close waits for those goroutines; raft answers each.
func (n *Node) enqueue(ctx context.Context, raw []byte) (<-chan answer, error) {
	if err := n.stopped(); err != nil {
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return nil, errors.New("the node is closed")
	}
	deadline, _ := ctx.Deadline()
	out := make(chan answer, 1)
	n.running.Go(func() {
		f := n.raft.Apply(raw, max(time.Until(deadline), time.Nanosecond))
		err := f.Error()
		if err != nil {
			out <- answer{err: err}
			return
		}
		out <- answer{response: f.Response()}
	})
	return out, nil
}

// settle tells refusals, what certainly did not happen, and what may have.
func (a answer) settle(id string) (any, error) {
	switch {
	case errors.Is(a.err, raft.ErrNotLeader), errors.Is(a.err, raft.ErrEnqueueTimeout),
		errors.Is(a.err, raft.ErrLeadershipTransferInProgress), errors.Is(a.err, raft.ErrAbortedByRestore):
		return nil, unavailable(a.err)
	case a.err != nil:
		return nil, &UnknownOutcomeError{id, a.err}
	}
	r, ok := a.response.(applied)
	if !ok {
		return nil, &UnknownOutcomeError{id, fmt.Errorf("answer of type %T", a.response)}
	}
	if errors.Is(r.err, errStopped) {
		return nil, &UnknownOutcomeError{id, r.err}
	}
	return r.result, r.err
}

func unavailable(err error) error {
	e := bulkhead.E(bulkhead.Unavailable, "cluster_unavailable", "The cluster cannot take changes now. Try again.")
	e.RetryAfter = time.Second
	return e.With(err)
}
