package cluster

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"github.com/hashicorp/raft"
)

// fate is what became of one attempt to have a command applied.
type fate int

const (
	unknown fate = iota // it may be applied
	not                 // it is not and will not be applied
	refused             // the state machine refused it
	applied
)

type outcome struct {
	fate     fate
	index    uint64 // where the log has it; of applied and refused
	result   any
	err      error // of every fate but applied
	inFlight bool  // it may not have reached a leader's log yet; of unknown
}

// order has this node, as the leader, put the command into the log, and waits
// for the state machine.
func (n *Node) order(ctx context.Context, t command.Type, raw []byte) outcome {
	if err := n.stopped(); err != nil {
		return outcome{fate: not, err: err}
	}
	answer := make(chan outcome, 1)
	if !n.spawn(func() { answer <- n.ordered(n.raft.Apply(raw, left(ctx))) }) {
		return outcome{fate: not, err: errClosed}
	}
	select {
	case o := <-answer:
		if o.fate == applied {
			n.spread(ctx, t)
		}
		return o
	case <-n.dead: // raft may never answer
		return outcome{fate: unknown, err: errStopped}
	case <-ctx.Done():
		return outcome{fate: unknown, err: ctx.Err()}
	}
}

// spread makes the others learn that a command is committed. They would learn
// it with the next entry or within two commit timeouts, which is long for the
// node that forwarded the command and waits to follow. An entry without effect
// tells them at once, and their disks with it.
//
// For a revocation that is waited for, so that a revoked key is revoked also on
// a node that comes back alone. That it fails takes nothing back.
func (n *Node) spread(ctx context.Context, t command.Type) {
	if n.otherVoters() == 0 || t == command.TypeBookReceipts { // nobody waits for the many receipts
		return
	}
	if t == command.TypeRevokeKey {
		_ = n.await(ctx, "spread", func() error { return n.raft.Barrier(left(ctx)).Error() })
		return
	}
	select {
	case n.news <- struct{}{}:
	default:
	}
}

// spreadNews is spread for those who do not wait: several commands, one entry.
func (n *Node) spreadNews() {
	for {
		select {
		case <-n.news:
			_ = n.raft.Barrier(time.Second).Error()
		case <-n.done:
			return
		}
	}
}

// ordered tells refusals, what certainly did not happen, and what may have.
func (n *Node) ordered(f raft.ApplyFuture) outcome {
	err := f.Error()
	switch {
	case certainlyNot(err):
		return outcome{fate: not, err: err}
	case err != nil:
		return outcome{fate: unknown, err: err}
	}
	switch r, ok := f.Response().(answered); {
	case !ok:
		return outcome{fate: unknown, err: fmt.Errorf("answer of type %T", f.Response())}
	case errors.Is(r.err, errStopped):
		return outcome{fate: unknown, err: r.err}
	case r.err != nil:
		return outcome{fate: refused, index: f.Index(), err: r.err}
	default:
		return outcome{fate: applied, index: f.Index(), result: r.result}
	}
}
