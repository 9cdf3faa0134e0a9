package admin_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/configs/manifest"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/access"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin/admintest"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin/wire"
	"go.uber.org/zap"
)

// desk is who knows the people of these tests: a token per person.
type desk struct {
	mu      sync.Mutex
	people  map[string]access.Principal
	fail    error
	refused []netip.Addr
}

// Identify implements admin.People.
func (s *desk) Identify(_ context.Context, token string) (access.Principal, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil {
		return access.Principal{}, s.fail
	}
	p, ok := s.people[token]
	if !ok {
		return p, bulkhead.E(bulkhead.Unauthenticated, "invalid_token", "The token is not valid.")
	}
	return p, nil
}

func (s *desk) refuse(addr netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refused = append(s.refused, addr)
}

func somebody(name string, platform []access.Role, tenants map[bulkhead.TenantID]access.Role) access.Principal {
	return access.Principal{
		Subject: "sub-" + name, Email: name + "@bank.example", Issuer: "https://idp.example", Method: access.ByOIDC,
		Platform: platform, Tenants: tenants,
	}
}

func newDesk() *desk {
	in := func(t bulkhead.TenantID, r access.Role) map[bulkhead.TenantID]access.Role {
		return map[bulkhead.TenantID]access.Role{t: r}
	}
	return &desk{people: map[string]access.Principal{
		"padmin":   somebody("padmin", []access.Role{access.PlatformAdmin}, nil),
		"pauditor": somebody("pauditor", []access.Role{access.Auditor}, nil),
		"owner":    somebody("owner", nil, in("acme", access.Owner)),
		"power":    somebody("power", nil, in("acme", access.PowerUser)),
		"user":     somebody("user", nil, in("acme", access.User)),
		"tauditor": somebody("tauditor", nil, in("acme", access.Auditor)),
		"other":    somebody("other", nil, in("globex", access.Owner)),
		"norole":   somebody("norole", nil, nil),
		"both":     somebody("both", nil, map[bulkhead.TenantID]access.Role{"acme": access.Owner, "globex": access.User}),
	}}
}

// company is two tenants in use and one that only waits.
const company = `
kind: Tenant
metadata: {name: acme}
spec: {owner: owner@bank.example, cost_center: CC-1}
---
kind: Project
metadata: {name: web, tenant: acme}
spec: {environments: {prod: {}, test: {}, sandbox: {}}}
---
kind: ServiceAccount
metadata: {name: bot, tenant: acme, project: web}
spec: {owner: dev@bank.example}
---
kind: Provider
metadata: {name: main, tenant: acme}
spec: {adapter: openai, base_url: "https://upstream.example/v1"}
---
kind: Route
metadata: {name: fast, tenant: acme}
spec: {targets: [{provider: main, model: tiny}]}
---
kind: Tenant
metadata: {name: globex}
spec: {owner: other@bank.example, cost_center: CC-2}
---
kind: Project
metadata: {name: shop, tenant: globex}
spec: {environments: {prod: {}}}
---
kind: ServiceAccount
metadata: {name: bot, tenant: globex, project: shop}
spec: {owner: dev@bank.example}
---
kind: Tenant
metadata: {name: spare}
spec: {owner: nobody@bank.example, cost_center: CC-3}
`

// office is a running API with people.
type office struct {
	*admintest.Fixture
	t     *testing.T
	desk  *desk
	fleet *admintest.Fleet
	ids   map[string]string // what stands in braces in paths and bodies
}

func newOffice(t *testing.T) *office {
	t.Helper()
	o := &office{t: t, desk: newDesk(), fleet: admintest.NewFleet(), ids: map[string]string{}}
	o.Fixture = admintest.Start(t, zap.NewNop(), o.fleet, func(c *admin.Config) {
		c.People, c.Refused = o.desk, o.desk.refuse
	})
	o.must(200, nil, admintest.Token, "POST", "/apply", wire.Apply{Objects: o.objects(company)})
	key := func(name, who, tenant, project, env string, personal bool) {
		var k wire.KeyCreated
		o.must(201, &k, who, "POST", "/keys", wire.CreateKey{
			Tenant: bulkhead.TenantID(tenant), Project: project, Env: env, ServiceAccount: "bot", Personal: personal,
		})
		o.ids[name] = string(k.ID)
	}
	key("prod", "owner", "acme", "web", "prod", false)
	key("test", "owner", "acme", "web", "test", false)
	key("own", "user", "acme", "web", "test", true)
	key("theirs", "other", "globex", "shop", "prod", false)
	var g wire.Grant
	o.must(201, &g, "owner", "POST", "/tenants/acme/grants", wire.CreateGrant{To: "guest@bank.example", Reason: "incident 7", ExpiresIn: 3600})
	o.ids["grant"] = g.ID
	o.settle()
	return o
}

// settle forgets what the setup did.
func (o *office) settle() {
	o.Trail.Taken()
	o.fleet.Calls()
}

func (o *office) objects(text string) []manifest.Object {
	o.t.Helper()
	objects, err := manifest.Decode("test", strings.NewReader(text))
	if err != nil {
		o.t.Fatal(err)
	}
	return objects
}

// ask sends a request as somebody: a token of the desk, or any other.
func (o *office) ask(token, method, path string, body any, header ...string) *httptest.ResponseRecorder {
	o.t.Helper()
	var text string
	switch b := body.(type) {
	case nil:
	case string:
		text = b
	default:
		raw, err := json.Marshal(b)
		if err != nil {
			o.t.Fatal(err)
		}
		text = string(raw)
	}
	for name, id := range o.ids {
		text = strings.ReplaceAll(text, "{"+name+"}", id)
		path = strings.ReplaceAll(path, "{"+name+"}", id)
	}
	r := httptest.NewRequestWithContext(o.t.Context(), method, "/admin/v1"+path, strings.NewReader(text))
	r.RemoteAddr = "192.0.2.7:4711"
	r.Header.Set("Authorization", "Bearer "+token)
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	o.API.ServeHTTP(w, r)
	return w
}

// must asks, wants the status and decodes the answer into out.
func (o *office) must(status int, out any, token, method, path string, body any, header ...string) string {
	o.t.Helper()
	w := o.ask(token, method, path, body, header...)
	if w.Code != status {
		o.t.Fatalf("%s %s as %s: %d, want %d: %s", method, path, token, w.Code, status, w.Body)
	}
	if out != nil {
		if err := json.Unmarshal(w.Body.Bytes(), out); err != nil {
			o.t.Fatalf("%s %s: %v in %s", method, path, err, w.Body)
		}
	}
	return w.Body.String()
}

// said are the events since the last call, a line each.
func (o *office) said() []string {
	var out []string
	for _, e := range o.Trail.Taken() {
		out = append(out, strings.Join([]string{e.Log, string(e.Phase), e.Action, string(e.Result)}, " "))
	}
	slices.Sort(out)
	return out
}

// digest sums up all that could have changed.
func (o *office) digest() [32]byte {
	o.t.Helper()
	sum, err := o.Cluster.State().View().Sum()
	if err != nil {
		o.t.Fatal(err)
	}
	return sum
}

func hours(n int) int64 { return int64(time.Duration(n) * time.Hour / time.Second) }

var _ http.Handler = (*admin.API)(nil)
