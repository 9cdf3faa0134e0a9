package admin_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin/admintest"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin/wire"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/apikey"
)

func TestKeys(t *testing.T) {
	f := start(t)
	f.apply(desired)
	f.Cluster.Awaited()
	k := f.key()
	if err := apikey.ParseKey([]byte(k.Key)); err != nil || !strings.HasPrefix(string(k.ID), "key_") {
		t.Fatalf("key %+v: %v", k, err)
	}
	if got := f.Cluster.Awaited(); !slices.Equal(got, []bulkhead.TenantID{"acme"}) {
		t.Errorf("create waited for %v", got)
	}
	var next wire.KeyCreated
	f.must(201, &next, "POST", "/admin/v1/keys/"+string(k.ID)+"/rotate", nil)
	old, _ := f.Cluster.State().Key(k.ID)
	successor, _ := f.Cluster.State().Key(next.ID)
	if next.Key == k.Key || old.RevokedAt != 0 || successor.Account != "bot" || successor.Owner != "dev@acme.example" {
		t.Errorf("rotated %+v to %+v", old, successor)
	}
	var revoked wire.Key
	f.must(200, &revoked, "POST", "/admin/v1/keys/"+string(k.ID)+"/revoke", nil)
	if revoked.RevokedAt.IsZero() || !slices.Equal(f.Cluster.Awaited(), []bulkhead.TenantID{"acme", "acme"}) {
		t.Errorf("revoked: %+v", revoked)
	}
	f.must(200, nil, "POST", "/admin/v1/keys/"+string(k.ID)+"/revoke", nil) // twice is once
	f.must(409, nil, "POST", "/admin/v1/keys/"+string(k.ID)+"/rotate", nil)
	f.must(404, nil, "POST", "/admin/v1/keys/key_none/revoke", nil)
	f.must(404, nil, "POST", "/admin/v1/keys/key_none/rotate", nil)
	for _, bad := range []wire.CreateKey{
		{Tenant: "acme", Project: "web", Env: "dev", ServiceAccount: "bot"},
		{Tenant: "ghost", Project: "web", Env: "prod", ServiceAccount: "bot"},
	} {
		f.must(404, nil, "POST", "/admin/v1/keys", bad)
	}
	f.must(422, nil, "POST", "/admin/v1/keys", wire.CreateKey{Tenant: "acme", Project: "web", Env: "prod", ServiceAccount: "bot", Owner: "=cmd|x"})
	var list wire.Keys
	raw := f.must(200, &list, "GET", "/admin/v1/keys?tenant=acme", nil)
	if len(list.Keys) != 2 {
		t.Errorf("list: %s", raw)
	}
	f.noSecret(raw, k.Key, next.Key)
}

// noSecret fails when a secret, or the hash of a key, is in a text or the log.
func (f *fixture) noSecret(text string, secrets ...string) {
	f.t.Helper()
	for _, e := range f.log.All() {
		text += fmt.Sprint(e.Message, e.ContextMap())
	}
	for _, s := range append(secrets, canary, admintest.Token) {
		if strings.Contains(text, s) {
			f.t.Errorf("secret %.8s... in an answer or the log", s)
		}
	}
}

func TestIdempotencyKey(t *testing.T) {
	f := start(t)
	f.apply(desired)
	body := wire.CreateKey{Tenant: "acme", Project: "web", Env: "prod", ServiceAccount: "bot"}
	var k wire.KeyCreated
	f.must(201, &k, "POST", "/admin/v1/keys", body, wire.IdempotencyKey, "create-0001")
	raw := f.must(409, nil, "POST", "/admin/v1/keys", body, wire.IdempotencyKey, "create-0001")
	if !strings.Contains(raw, string(k.ID)) || strings.Contains(raw, k.Key) {
		t.Errorf("repeated create: %s", raw)
	}
	if n := len(f.Cluster.State().Keys("acme")); n != 1 {
		t.Errorf("%d keys of one write", n)
	}
	for range 2 {
		f.must(200, nil, "POST", "/admin/v1/tenants/acme/suspend", nil, wire.IdempotencyKey, "suspend-0001")
	}
	// The same name for another write is a mistake of the caller.
	f.must(409, nil, "POST", "/admin/v1/tenants/acme/resume", nil, wire.IdempotencyKey, "suspend-0001")
	f.must(422, nil, "POST", "/admin/v1/tenants/acme/resume", nil, wire.IdempotencyKey, "short")
}

func TestSuspend(t *testing.T) {
	f := start(t)
	f.apply(desired)
	f.Cluster.Awaited()
	var s wire.TenantState
	f.must(200, &s, "POST", "/admin/v1/tenants/acme/suspend", nil)
	if tenant, _ := f.Cluster.State().Tenant("acme"); !tenant.Suspended || !s.Suspended || len(f.Cluster.Awaited()) != 1 {
		t.Errorf("suspended: %+v", s)
	}
	f.must(200, &s, "POST", "/admin/v1/tenants/acme/resume", nil)
	if tenant, _ := f.Cluster.State().Tenant("acme"); tenant.Suspended || s.Suspended {
		t.Errorf("resumed: %+v", s)
	}
	f.must(404, nil, "POST", "/admin/v1/tenants/ghost/suspend", nil)
}
