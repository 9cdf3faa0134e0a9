package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"github.com/bulkhead-ai/bulkhead/cluster/state"
)

// Forwarded is what a leader answers to a forwarded command. Exactly one of
// Result (with Index), Refusal, NotApplied and Unknown is set.
type Forwarded struct {
	Index      uint64          `json:"index,omitempty"`       // of Result and Refusal: the log has it there
	Result     json.RawMessage `json:"result,omitempty"`      // the state machine's, see state.DecodeResult
	Refusal    *Refusal        `json:"refusal,omitempty"`     // the state machine's or the leader's
	NotApplied string          `json:"not_applied,omitempty"` // why it was not and will not be applied
	Unknown    string          `json:"unknown,omitempty"`     // why the leader does not know
}

// Refusal is a *bulkhead.Error on its way between nodes.
type Refusal struct {
	Kind       bulkhead.Kind `json:"kind"`
	Code       string        `json:"code"`
	Message    string        `json:"message"`
	Param      string        `json:"param,omitempty"`
	RetryAfter time.Duration `json:"retry_after,omitempty"`
	Detail     string        `json:"detail,omitempty"` // for the operator
}

func refusalOf(e *bulkhead.Error) *Refusal {
	r := &Refusal{Kind: e.Kind, Code: e.Code, Message: e.Message, Param: e.Param, RetryAfter: e.RetryAfter}
	if e.Err != nil {
		r.Detail = e.Err.Error()
	}
	return r
}

func (r *Refusal) err() *bulkhead.Error {
	e := &bulkhead.Error{Kind: r.Kind, Code: r.Code, Message: r.Message, Param: r.Param, RetryAfter: r.RetryAfter}
	if r.Detail != "" {
		e.Err = errors.New(r.Detail)
	}
	return e
}

// HandleForward orders a command that another member forwarded. The sender must
// be authenticated. What became of the command is in the answer; an error says
// that raw is no command, and that nothing happened.
func (n *Node) HandleForward(ctx context.Context, raw []byte) (Forwarded, error) {
	env, err := command.Decode(raw)
	switch {
	case errors.Is(err, command.ErrUnknown) || err == nil && env.Command == nil:
		return Forwarded{Refusal: refusalOf(levelTooLow())}, nil // a newer build's: it must not enter the log
	case err != nil:
		return Forwarded{}, bulkhead.E(bulkhead.InvalidRequest, "invalid_command", "The change cannot be decoded.").With(err)
	}
	if err := n.gate(env.Command.Type()); err != nil {
		return Forwarded{Refusal: refusalOf(bulkhead.AsError(err))}, nil
	}
	ctx, cancel := n.requested(ctx)
	defer cancel()
	return n.order(ctx, env.Command.Type(), raw).answer(), nil
}

// answer is the outcome as it crosses the network.
func (o outcome) answer() Forwarded {
	switch o.fate {
	case applied:
		raw, err := json.Marshal(o.result)
		if err != nil {
			return Forwarded{Unknown: "encode the result: " + err.Error()}
		}
		return Forwarded{Index: o.index, Result: raw}
	case refused:
		return Forwarded{Index: o.index, Refusal: refusalOf(bulkhead.AsError(o.err))}
	case not:
		return Forwarded{NotApplied: o.err.Error()}
	}
	return Forwarded{Unknown: o.err.Error()}
}

// outcome is the answer of a leader to a command of the type.
func (f *Forwarded) outcome(t command.Type) outcome {
	switch {
	case f.Refusal != nil:
		return outcome{fate: refused, index: f.Index, err: f.Refusal.err()}
	case f.NotApplied != "":
		return outcome{fate: not, err: errors.New(f.NotApplied)}
	case f.Unknown != "":
		return outcome{fate: unknown, err: errors.New(f.Unknown)}
	}
	result, err := state.DecodeResult(t, f.Result)
	if err != nil {
		return outcome{fate: unknown, err: err}
	}
	return outcome{fate: applied, index: f.Index, result: result}
}

// forward sends the command to the leader. It gives up early when another node
// leads: an answer of the old one may never come.
func (n *Node) forward(ctx context.Context, leader string, p *proposal, changed <-chan struct{}) outcome {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	answer := make(chan outcome, 1)
	if !n.spawn(func() { answer <- n.send(ctx, leader, p) }) {
		return outcome{fate: not, err: errClosed}
	}
	for {
		select {
		case o := <-answer:
			return o
		case <-changed:
			if id, _ := n.Leader(); id != "" && id != leader {
				return outcome{fate: unknown, inFlight: true, err: fmt.Errorf("node %s led, now %s", leader, id)}
			}
		case <-ctx.Done():
			return outcome{fate: unknown, inFlight: true, err: ctx.Err()}
		}
	}
}

func (n *Node) send(ctx context.Context, leader string, p *proposal) outcome {
	f, err := n.cfg.Forward(ctx, leader, p.raw)
	var e *bulkhead.Error
	switch {
	case err == nil:
		return f.outcome(p.typ)
	case errors.As(err, &e) && (e.Code == "node_unreachable" || e.Code == "invalid_command"):
		return outcome{fate: not, err: err}
	}
	return outcome{fate: unknown, inFlight: true, err: err}
}
