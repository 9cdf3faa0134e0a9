package cluster

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	mrand "math/rand/v2"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
)

// ErrUnknownOutcome says that a command or a change may or may not happen, now
// or later: the deadline passed, or the leader lost its leadership or stopped,
// after it was on its way. Repeating a command with ProposeID under the id of
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
// A follower forwards the command to the leader. While there is none the
// command is held, and while its outcome is unknown it is repeated under its
// id, until the context ends, at most for Config.ProposeTimeout.
//
// When it returns a result, the command is committed, applied to this node's
// State and seen by its OnApply. Errors: *bulkhead.Error as the state machine
// refused it; of the kind TooLarge; a conflict level_too_low; of the kind
// Unavailable, then the command was not and will not be applied; or
// *UnknownOutcomeError.
func (n *Node) ProposeID(ctx context.Context, id string, cmd command.Command) (any, error) {
	raw, err := command.Encode(cmd, id, time.Now())
	switch {
	case errors.Is(err, command.ErrTooLarge):
		return nil, bulkhead.E(bulkhead.TooLarge, "command_too_large", "The change is too large; split it.").With(err)
	case err != nil:
		return nil, bulkhead.E(bulkhead.InvalidRequest, "invalid_command", "The change cannot be encoded.").With(err)
	}
	if err := n.gate(cmd.Type()); err != nil {
		return nil, err
	}
	ctx, cancel := n.requested(ctx)
	defer cancel()
	if err := ctx.Err(); err != nil {
		return nil, unavailable(err)
	}
	p := proposal{id: id, typ: cmd.Type(), raw: raw}
	return n.insist(ctx, &p)
}

// proposal is a command on its way.
type proposal struct {
	id  string
	typ command.Type
	raw []byte

	doubt    error // why an earlier attempt may have been applied; nil: none was
	inFlight bool  // an earlier attempt may still reach a leader
}

// insist tries until there is an answer or no time left.
func (n *Node) insist(ctx context.Context, p *proposal) (any, error) {
	changed, stop := n.LeaderChanged()
	defer stop()
	for try := 0; ; try++ {
		if err := n.stopped(); err != nil {
			return nil, p.giveUp(err)
		}
		o := n.attempt(ctx, p, changed)
		switch o.fate {
		case applied, refused:
			return n.conclude(ctx, p, o)
		case unknown:
			p.doubt = o.err
			p.inFlight = p.inFlight || o.inFlight
		}
		if !pause(ctx, changed, try) || errors.Is(o.err, errNoForward) {
			return nil, p.giveUp(o.err)
		}
	}
}

// pause waits until it makes sense to try again: who leads has changed, or a
// while has passed, a random one lest all come at once. False: no time is left.
func pause(ctx context.Context, changed <-chan struct{}, try int) bool {
	if ctx.Err() != nil {
		return false
	}
	longest := min(25*time.Millisecond<<min(try, 4), 250*time.Millisecond)
	timer := time.NewTimer(longest/2 + mrand.N(longest/2))
	defer timer.Stop()
	select {
	case <-changed:
	case <-timer.C:
	case <-ctx.Done():
		return false
	}
	return true
}

// conclude makes the caller's answer of a leader's one, once this node has
// followed.
func (n *Node) conclude(ctx context.Context, p *proposal, o outcome) (any, error) {
	if err := n.waitApplied(ctx, o.index); err != nil {
		return nil, &UnknownOutcomeError{p.id, fmt.Errorf("applied by the leader, not yet here: %w", err)}
	}
	if o.fate == refused && p.inFlight { // an earlier attempt may arrive later and be judged otherwise
		return nil, &UnknownOutcomeError{p.id, o.err}
	}
	return o.result, o.err
}

func (p *proposal) giveUp(why error) error {
	if p.doubt != nil {
		return &UnknownOutcomeError{p.id, p.doubt}
	}
	var e *bulkhead.Error
	if errors.As(why, &e) {
		return why
	}
	return unavailable(why)
}

// attempt brings the command once to whoever leads.
func (n *Node) attempt(ctx context.Context, p *proposal, changed <-chan struct{}) outcome {
	leader, self := n.Leader()
	switch {
	case self:
		return n.order(ctx, p.typ, p.raw)
	case leader == "" || leader == n.cfg.NodeID:
		return outcome{fate: not, err: errors.New("the cluster has no leader")}
	case n.cfg.Forward == nil:
		return outcome{fate: not, err: errNoForward}
	}
	return n.forward(ctx, leader, p, changed)
}

var errNoForward = errors.New("another node leads, and this one cannot reach it")

func unavailable(err error) error {
	e := bulkhead.E(bulkhead.Unavailable, "cluster_unavailable", "The cluster cannot take changes now. Try again.")
	e.RetryAfter = time.Second
	return e.With(err)
}
