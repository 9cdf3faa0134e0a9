package shares

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"github.com/bulkhead-ai/bulkhead/cluster/state"
	"go.uber.org/zap"
)

// Cluster is the replicated state. Methods may be called concurrently.
type Cluster interface {
	State() *state.State
	// Watch answers a channel that gets a value after the state changed.
	Watch() (changed <-chan struct{}, stop func())
}

// Peers calls other members; see cluster/transport.
type Peers interface {
	Call(ctx context.Context, node, method string, in, out any) error
}

// Config of an Exchange. A zero duration takes its default.
type Config struct {
	Node    string  // this one
	Store   *Store  // required
	Cluster Cluster // required
	Peers   Peers   // nil: the node stands alone

	CallTimeout time.Duration // for one member to answer; 5 s
	Retry       time.Duration // first pause before what this node lacks is asked for again; doubles up to a minute; 1 s
	Sweep       time.Duration // between looks at all tenants, beside the changes; 10 min
	Log         *zap.Logger   // nil = none; never sees a share
}

// Exchange brings shares to where they belong: to every member. Its methods may
// be called concurrently.
type Exchange struct {
	cfg Config

	mu      sync.Mutex
	closed  bool
	tasks   sync.WaitGroup
	ctx     context.Context // of what runs in the background
	stop    context.CancelFunc
	lacking int // live tenants whose share is not here
}

// NewExchange checks the configuration. Register makes the node reachable for the
// others, Run must run.
func NewExchange(cfg Config) (*Exchange, error) {
	if cfg.Store == nil || cfg.Cluster == nil {
		return nil, errors.New("key shares: store and cluster are required")
	}
	for _, d := range []struct {
		field *time.Duration
		value time.Duration
	}{{&cfg.CallTimeout, 5 * time.Second}, {&cfg.Retry, time.Second}, {&cfg.Sweep, 10 * time.Minute}} {
		if *d.field <= 0 {
			*d.field = d.value
		}
	}
	if cfg.Log == nil {
		cfg.Log = zap.NewNop()
	}
	x := &Exchange{cfg: cfg}
	x.ctx, x.stop = context.WithCancel(context.Background())
	return x, nil
}

// Close ends what runs in the background and waits for it. It is idempotent.
func (x *Exchange) Close() {
	x.mu.Lock()
	x.closed = true
	x.mu.Unlock()
	x.stop()
	x.tasks.Wait()
}

// background runs f, which ends with its ctx, unless the exchange was closed.
func (x *Exchange) background(f func(ctx context.Context)) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if !x.closed {
		x.tasks.Go(func() { f(x.ctx) })
	}
	return !x.closed
}

// Errors that a client or an operator may see.
var (
	errErased = bulkhead.E(bulkhead.Conflict, "share_destroyed",
		"The tenant's key share was destroyed: its data is unreadable for ever.")
	errUnreachable = &bulkhead.Error{
		Kind: bulkhead.Unavailable, Code: "share_unreachable",
		Message: "No member that has the tenant's key share can be reached. Try again.", RetryAfter: time.Second,
	}
	errTooFew = &bulkhead.Error{
		Kind: bulkhead.Unavailable, Code: "share_not_spread",
		Message: "Too few members can take the tenant's key share. Try again.", RetryAfter: time.Second,
	}
)

func erased(err error) error { return errErased.With(err) }

// isErased reports whether an error, of this node or of a peer, says that the
// share was destroyed.
func isErased(err error) bool {
	var e *bulkhead.Error
	return errors.Is(err, ErrDestroyed) || errors.As(err, &e) && e.Code == errErased.Code
}

// condemned reports whether the state says that a share is to be destroyed, or
// was.
func condemned(view *state.View, tenant bulkhead.TenantID, id []byte) bool {
	e, ok := view.Erasure(tenant)
	return ok && bytes.Equal(e.ShareID, id) && destroys(e.Step)
}

// destroys reports whether an erasure at this step has begun to destroy.
func destroys(step string) bool {
	switch step {
	case command.StepShred, command.StepForget, command.StepSnapshots, command.StepCertify, command.StepDone:
		return true
	}
	return false
}

// refuse answers why a share must not be used, nil if it may.
func (x *Exchange) refuse(tenant bulkhead.TenantID, id []byte) error {
	if condemned(x.cfg.Cluster.State().View(), tenant, id) {
		return erased(fmt.Errorf("key share %s.%s: its destruction is decided", tenant, hex.EncodeToString(id)))
	}
	if at, destroyed := x.cfg.Store.Destroyed(tenant, id); destroyed {
		return erased(fmt.Errorf("key share %s.%s: %w on %s", tenant, hex.EncodeToString(id), ErrDestroyed, at.UTC().Format(time.RFC3339)))
	}
	return nil
}

// others lists the members but this one, and how many stores with this one make a
// majority of all.
func (x *Exchange) others() (nodes []string, majority int) {
	members, self := 0, false
	for _, n := range x.cfg.Cluster.State().Nodes() {
		members++
		if n.ID == x.cfg.Node {
			self = true
			continue
		}
		nodes = append(nodes, n.ID)
	}
	majority = members/2 + 1
	if !self && members > 0 {
		majority++ // what is here does not count
	}
	return nodes, majority
}

// Get answers the share, from here or from the first member that has it; then it
// is kept here. The caller clears it. Errors are *bulkhead.Error: share_destroyed
// (Conflict), share_unreachable (Unavailable).
func (x *Exchange) Get(ctx context.Context, tenant bulkhead.TenantID, id []byte) ([]byte, error) {
	if err := x.refuse(tenant, id); err != nil {
		return nil, err
	}
	share, err := x.cfg.Store.Get(tenant, id)
	if err == nil {
		return share, nil
	}
	if !errors.Is(err, ErrNone) {
		x.cfg.Log.Error("this node's key share cannot be read, other members are asked", zap.Error(err))
	}
	share, fetchErr := x.fetch(ctx, tenant, id)
	if fetchErr != nil {
		if isErased(fetchErr) {
			return nil, erased(fetchErr)
		}
		return nil, errUnreachable.With(errors.Join(err, fetchErr))
	}
	if err := x.refuse(tenant, id); err != nil { // decided meanwhile
		clear(share)
		return nil, err
	}
	if err := x.cfg.Store.Put(tenant, id, share); err != nil {
		if isErased(err) {
			clear(share)
			return nil, erased(err)
		}
		x.cfg.Log.Error("a key share from another member cannot be kept here", zap.Error(err))
	}
	return share, nil
}

// answer is what a member said.
type answer struct {
	node  string
	share []byte
	err   error
}

// ask calls a method of every node at once. Every node has one answer in the
// channel.
func (x *Exchange) ask(ctx context.Context, nodes []string, call func(ctx context.Context, node string) ([]byte, error)) <-chan answer {
	answers := make(chan answer, len(nodes))
	for _, node := range nodes {
		began := x.background(func(life context.Context) {
			ctx, cancel := context.WithTimeout(ctx, x.cfg.CallTimeout)
			defer cancel()
			defer context.AfterFunc(life, cancel)()
			share, err := call(ctx, node)
			answers <- answer{node, share, err}
		})
		if !began {
			answers <- answer{node: node, err: errors.New("this node ends")}
		}
	}
	return answers
}

// fetch asks the other members. One that says the share was destroyed is not
// outvoted by those that have it still: they have not come to that yet.
func (x *Exchange) fetch(ctx context.Context, tenant bulkhead.TenantID, id []byte) ([]byte, error) {
	nodes, _ := x.others()
	if x.cfg.Peers == nil || len(nodes) == 0 {
		return nil, errors.New("there is no other member")
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	answers := x.ask(ctx, nodes, func(ctx context.Context, node string) ([]byte, error) {
		var out shareMessage
		err := x.cfg.Peers.Call(ctx, node, MethodGet, shareName{tenant, id}, &out)
		return out.Share, err
	})
	var errs []error
	for range nodes {
		a := <-answers
		k, err := newKey(tenant, id)
		switch {
		case a.err != nil:
			err = a.err
		case err == nil:
			err = k.matches(a.share)
		}
		if err == nil {
			return a.share, nil
		}
		if isErased(err) {
			return nil, err
		}
		errs = append(errs, fmt.Errorf("member %s: %w", a.node, err))
	}
	return nil, errors.Join(errs...)
}
