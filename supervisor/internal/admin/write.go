package admin

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"github.com/danielgtaylor/huma/v2"
	"go.uber.org/zap"
)

// effectTimeout bounds the wait for workers after a change. A worker that does
// not follow is killed well before that.
const effectTimeout = 30 * time.Second

// Writing is the part of every write's input. It is exported because huma fills
// only exported embedded fields.
type Writing struct {
	Op  string `header:"Idempotency-Key" doc:"names this write: the same name again has no second effect; default: a new one" minLength:"8" maxLength:"100" pattern:"^[!-~]+$"`
	who string
}

var _ huma.Resolver = (*Writing)(nil)

// Resolve implements huma.Resolver: names of writes are per caller, so that
// nobody is answered, or kept from writing, by the name of another's write.
func (w *Writing) Resolve(ctx huma.Context) []error {
	p := callerOf(ctx.Context()).principal
	w.who = p.Method + "\x00" + p.Issuer + "\x00" + p.Subject
	return nil
}

// op is the id of the write's command.
func (w Writing) op() string {
	if w.Op == "" {
		return "admin-" + rand.Text()
	}
	sum := sha256.Sum256([]byte("bulkhead/write\x00" + w.who + "\x00" + w.Op))
	return "admin-" + hex.EncodeToString(sum[:16])
}

// fix gives a write without a name one, for a write that does more than one
// thing, or that is on record before it is made.
func (w *Writing) fix() {
	if w.Op == "" {
		w.Op = rand.Text()
	}
}

// operation describes a route. Reads are GET; every change is POST, PUT or
// DELETE.
func operation(id, method, path, summary string) huma.Operation {
	return huma.Operation{
		OperationID: id, Method: method, Path: "/admin/v1" + path, Summary: summary,
		MaxBodyBytes: 1 << 20, BodyReadTimeout: 30 * time.Second,
		Errors: []int{http.StatusUnauthorized, http.StatusUnprocessableEntity, http.StatusInternalServerError},
	}
}

// propose applies a command and waits until the tenant's part of the data plane
// acts on it, on every node.
func (a *API) propose(ctx context.Context, what, op string, cmd command.Command, tenants ...bulkhead.TenantID) (any, error) {
	result, err := a.cfg.Cluster.ProposeID(ctx, op, cmd)
	if err != nil {
		return nil, a.fail(what, err)
	}
	a.cfg.Log.Info(what, zap.String("op", op))
	return result, a.await(ctx, what, tenants)
}

// hasten is propose for what must not fail any more once it is decided: a new
// key can be shown only now. The other nodes are waited for, but not for ever.
func (a *API) hasten(ctx context.Context, what, op string, cmd command.Command, tenant bulkhead.TenantID) error {
	if _, err := a.cfg.Cluster.ProposeID(ctx, op, cmd); err != nil {
		return a.fail(what, err)
	}
	a.cfg.Log.Info(what, zap.String("op", op))
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), effectTimeout)
	defer cancel()
	if err := a.awaitHere(ctx, what, []bulkhead.TenantID{tenant}); err != nil {
		return err
	}
	bounded, stop := context.WithTimeout(ctx, spread)
	defer stop()
	if err := a.everywhere(bounded); err != nil {
		a.cfg.Log.Warn(what+": not yet known on every node", zap.Error(err))
	}
	return nil
}

// await outlives the client: the change is made, and whether it is in force
// matters also when nobody listens any more. It returns when this node acts on
// it and so does every other one that may still serve.
func (a *API) await(ctx context.Context, what string, tenants []bulkhead.TenantID) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), effectTimeout)
	defer cancel()
	if err := a.awaitHere(ctx, what, tenants); err != nil {
		return err
	}
	if len(tenants) == 0 {
		return nil
	}
	if err := a.everywhere(ctx); err != nil {
		a.cfg.Log.Error(what+": wait for the other nodes", zap.Error(err))
		return huma.Error504GatewayTimeout("the change is stored, but not every node has confirmed that it is in force; repeat it")
	}
	return nil
}

// awaitHere waits for this node.
func (a *API) awaitHere(ctx context.Context, what string, tenants []bulkhead.TenantID) error {
	for _, id := range tenants {
		t, _ := a.cfg.Cluster.State().Tenant(id)
		if err := a.cfg.Effects.Await(ctx, id, t.Rev); err != nil {
			a.cfg.Log.Error(what+": wait for effect", zap.String("tenant", string(id)), zap.Error(err))
			return huma.Error504GatewayTimeout("the change is stored, but this node has not confirmed that it is in force; repeat it")
		}
	}
	return nil
}
