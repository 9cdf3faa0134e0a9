package edge

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/gateway"
	"github.com/bulkhead-ai/bulkhead/worker/control"
)

// persons is gateway.Tokens for one person of acme.
type persons struct{ node *node }

const personToken = "e30.e30.c2ln"

func (p persons) Person(context.Context, string) (gateway.Grant, error) {
	m := &control.Member{Project: "chat", Env: "prod", Account: "bot", Owner: "ann@x.example", ExpiresAt: time.Now().Add(time.Hour).UnixMilli()}
	route := p.node.table.Tenant("acme")
	return gateway.Grant{Tenant: "acme", Key: "person_0123456789abcdef", Rev: route.Rev(), Suspended: route.Suspended(), ExpiresAt: m.ExpiresAt, Member: m}, nil
}

// TestPersonAnywhere: who a person is reaches the worker, on whatever node the
// request came in.
func TestPersonAnywhere(t *testing.T) { onBoth(t, personAnywhere) }

func personAnywhere(t *testing.T, wires fabric) {
	c := newCluster(t, wires, nil)
	c.nodes["n1"].workers.handle("acme", func(w http.ResponseWriter, r *http.Request) {
		d, err := control.ParseHead(r.Header)
		if err != nil || d.Member == nil {
			http.Error(w, fmt.Sprint(d, err), http.StatusInternalServerError)
			return
		}
		io.WriteString(w, string(d.Key)+" "+d.Member.Owner+" "+d.Member.Project)
	})
	for _, id := range []string{"n1", "n2", "n3"} {
		c.nodes[id].ask(t, postWith(personToken, "{}"), 200, "person_0123456789abcdef ann@x.example chat")
	}
}

// TestErasing: once a tenant's erasure has begun no request reaches its worker,
// also not through a node that has not heard of it, but a query does.
func TestErasing(t *testing.T) { onBoth(t, erasing) }

func erasing(t *testing.T, wires fabric) {
	c := newCluster(t, wires, nil)
	c.nodes["n1"].workers.handle("acme", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "served") })
	c.nodes["n2"].ask(t, postWith(personToken, "{}"), 200, "served")
	c.nodes["n3"].lags.Store(true)
	c.must(&command.BeginErasure{ID: "e1", Tenant: "acme", Reason: "left", By: "admin@x.example"})
	for _, id := range []string{"n1", "n2", "n3"} {
		c.nodes[id].ask(t, postWith(personToken, "{}"), 403, "tenant_suspended")
	}
	for _, id := range []string{"n1", "n2"} {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		_, release, err := c.nodes[id].router.Query(ctx, bulkhead.TenantID("acme"))
		if err != nil {
			t.Errorf("query at %s: %v", id, err)
		} else {
			release()
		}
		cancel()
	}
}
