package shares

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/bulkhead-ai/bulkhead"
	"go.uber.org/zap"
)

// The calls between members.
const (
	MethodGet = "share/get" // shareName -> shareMessage
	MethodPut = "share/put" // shareMessage -> nothing
)

type shareName struct {
	Tenant bulkhead.TenantID `json:"tenant"`
	ID     []byte            `json:"id"`
}

type shareMessage struct {
	Tenant bulkhead.TenantID `json:"tenant"`
	ID     []byte            `json:"id"`
	Share  []byte            `json:"share"`
}

// Mux takes the handlers of what other members ask; see cluster/transport, which
// lets members in and nobody else.
type Mux interface {
	HandleCall(method string, handle func(ctx context.Context, peer string, in json.RawMessage) (any, error))
}

// Register puts the handlers for other members in place.
func (x *Exchange) Register(m Mux) {
	m.HandleCall(MethodGet, func(_ context.Context, peer string, in json.RawMessage) (any, error) {
		var n shareName
		if err := json.Unmarshal(in, &n); err != nil {
			return nil, fmt.Errorf("decode request for a key share: %w", err)
		}
		return x.serveGet(peer, n)
	})
	m.HandleCall(MethodPut, func(_ context.Context, _ string, in json.RawMessage) (any, error) {
		var s shareMessage
		defer clear(in)
		if err := json.Unmarshal(in, &s); err != nil {
			return nil, errors.New("decode key share: malformed") // the decoder's error might quote it
		}
		defer clear(s.Share)
		return struct{}{}, x.keep(s.Tenant, s.ID, s.Share)
	})
}

func (x *Exchange) serveGet(peer string, n shareName) (any, error) {
	if err := x.refuse(n.Tenant, n.ID); err != nil {
		return nil, err
	}
	share, err := x.cfg.Store.Get(n.Tenant, n.ID)
	if errors.Is(err, ErrNone) {
		return nil, bulkhead.E(bulkhead.NotFound, "share_not_found", "This member does not have the key share.")
	}
	if err != nil {
		x.cfg.Log.Error("a member asks for a key share that cannot be read", zap.String("peer", peer), zap.Error(err))
		return nil, err
	}
	return shareMessage{Tenant: n.Tenant, ID: n.ID, Share: share}, nil
}

// keep stores a share unless it was destroyed, or is about to be.
func (x *Exchange) keep(tenant bulkhead.TenantID, id, share []byte) error {
	if err := x.refuse(tenant, id); err != nil {
		return err
	}
	if err := x.cfg.Store.Put(tenant, id, share); err != nil {
		if isErased(err) {
			return erased(err)
		}
		return err
	}
	return nil
}

// Spread stores a share here and on the other members, and returns when a
// majority of all has it durably; the rest is tried in the background. Errors:
// share_destroyed (Conflict) as soon as a member says so, share_not_spread
// (Unavailable).
func (x *Exchange) Spread(ctx context.Context, tenant bulkhead.TenantID, id, share []byte) error {
	if err := x.keep(tenant, id, share); err != nil {
		return err
	}
	nodes, majority := x.others()
	if len(nodes) == 0 {
		return nil
	}
	if x.cfg.Peers == nil {
		return errTooFew.With(errors.New("this node reaches no other"))
	}
	held := 1
	message := shareMessage{tenant, id, append([]byte(nil), share...)}
	answers := make(chan answer, len(nodes))
	x.background(func(life context.Context) {
		x.push(life, nodes, message, answers)
	})
	var errs []error
	for range nodes {
		select {
		case a := <-answers:
			switch {
			case a.err == nil:
				if held++; held >= majority {
					return nil
				}
			case isErased(a.err):
				return erased(fmt.Errorf("member %s: %w", a.node, a.err))
			default:
				errs = append(errs, fmt.Errorf("member %s: %w", a.node, a.err))
			}
		case <-ctx.Done():
			return errTooFew.With(errors.Join(append(errs, ctx.Err())...))
		case <-x.ctx.Done():
			return errTooFew.With(errors.New("this node ends"))
		}
	}
	return errTooFew.With(fmt.Errorf("%d of the %d members that make a majority: %w", held, majority, errors.Join(errs...)))
}

// push offers a share to nodes, whoever waits for that. A node that does not
// answer fetches the share itself, see Run.
func (x *Exchange) push(ctx context.Context, nodes []string, m shareMessage, to chan<- answer) {
	defer clear(m.Share)
	answers := x.ask(ctx, nodes, func(ctx context.Context, node string) ([]byte, error) {
		return nil, x.cfg.Peers.Call(ctx, node, MethodPut, m, nil)
	})
	for range nodes {
		a := <-answers
		if a.err != nil && ctx.Err() == nil {
			x.cfg.Log.Warn("a member has not taken a key share yet", zap.String("node", a.node),
				zap.String("tenant", string(m.Tenant)), zap.Error(a.err))
		}
		to <- a
	}
}
