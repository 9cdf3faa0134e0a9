package admin

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"github.com/bulkhead-ai/bulkhead/configs/manifest"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/access"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin/wire"
)

type listKeysInput struct {
	Tenant string `query:"tenant" maxLength:"63" doc:"default: all tenants that the caller may see"`
}

type keysOutput struct{ Body wire.Keys }

type rotationsOutput struct{ Body wire.Rotations }

type revokeKeysInput struct {
	Writing
	Body wire.RevokeKeys
}

// aboutKeys is the matter of a list of keys.
func (a *API) aboutKeys(action string) func(context.Context, *listKeysInput) (matter, error) {
	return func(ctx context.Context, in *listKeysInput) (matter, error) {
		return a.aboutList(ctx, action, in.Tenant, "keys")
	}
}

// aboutList is the matter of a list: of the tenant that is named, or of all those
// in which the caller may see something of it, so that each of them has the
// event.
func (a *API) aboutList(ctx context.Context, action, tenant, object string) (matter, error) {
	if tenant != "" {
		m, err := a.ofTenant(tenant)
		m.object = object
		return m, err
	}
	rule, _ := access.Find(action)
	tenants, _ := rule.Scope(principalOf(ctx))
	return matter{tenants: tenants, object: object}, nil
}

// sees answers which keys the caller may see in a list.
func (a *API) sees(ctx context.Context, action, tenant string) func(*command.Key) bool {
	rule, _ := access.Find(action)
	who := principalOf(ctx)
	return func(k *command.Key) bool {
		return (tenant == "" || string(k.Tenant) == tenant) && rule.Admits(who, k.Tenant, k.Env, k.Owner)
	}
}

func (a *API) listKeys(ctx context.Context, in *listKeysInput) (*keysOutput, error) {
	out := &keysOutput{wire.Keys{Keys: []wire.Key{}}}
	v, see := a.cfg.Cluster.State().View(), a.sees(ctx, "list-keys", in.Tenant)
	v.RangeKeys(func(k *command.Key) bool {
		if see(k) {
			out.Body.Keys = append(out.Body.Keys, keyOf(v, k))
		}
		return true
	})
	return out, nil
}

func (a *API) keyRotations(ctx context.Context, in *listKeysInput) (*rotationsOutput, error) {
	v := a.cfg.Cluster.State().View()
	return &rotationsOutput{wire.Rotations{Rotations: rotations(v, time.Now(), a.sees(ctx, "key-rotations", in.Tenant))}}, nil
}

func (a *API) aboutRevokeKeys(_ context.Context, in *revokeKeysInput) (matter, error) {
	in.fix()
	m, err := a.ofTenant(string(in.Body.Tenant))
	m.object, m.after = "keys of "+selection(&in.Body), in.Body
	return m, err
}

// selection is what a body names, for people.
func selection(b *wire.RevokeKeys) string {
	var parts []string
	if b.Owner != "" {
		parts = append(parts, b.Owner)
	}
	if b.ServiceAccount != "" {
		parts = append(parts, "ServiceAccount "+strings.TrimPrefix(b.Project+"/"+b.ServiceAccount, "/"))
	}
	return strings.Join(parts, " at ")
}

// revokeKeys ends keys one by one and waits once. Broken off, it is repeated: it
// answers the keys that it ended. That none was ever there is an error: a name
// with a typing mistake must not look like a person without keys.
func (a *API) revokeKeys(ctx context.Context, in *revokeKeysInput) (*keysOutput, error) {
	b := &in.Body
	switch {
	case b.Owner == "" && b.ServiceAccount == "":
		return nil, invalid("owner", "or service_account is needed: this ends the keys of one of them")
	case b.Owner != "" && !manifest.ValidOwner(b.Owner):
		return nil, invalid("owner", "is no e-mail address")
	}
	known, ended := 0, []bulkhead.KeyID{}
	for _, k := range a.cfg.Cluster.State().Keys(b.Tenant) {
		if !selects(b, &k) {
			continue
		}
		known++
		if k.RevokedAt != 0 {
			continue
		}
		if _, err := a.propose(ctx, "revoke key", partOp(in.op(), string(k.ID)), &command.RevokeKey{ID: k.ID}); err != nil {
			return nil, err
		}
		ended = append(ended, k.ID)
	}
	if known == 0 {
		return nil, coded(http.StatusNotFound, "key_not_found", fmt.Sprintf("tenant %s has no keys of %s", b.Tenant, selection(b)))
	}
	if err := a.await(ctx, "revoke keys", []bulkhead.TenantID{b.Tenant}); err != nil {
		return nil, err
	}
	out, v := &keysOutput{wire.Keys{Keys: []wire.Key{}}}, a.cfg.Cluster.State().View()
	for _, id := range ended {
		if k, ok := v.Key(id); ok {
			out.Body.Keys = append(out.Body.Keys, keyOf(v, &k))
		}
	}
	noteAfter(ctx, map[string]any{"revoked": ended})
	return out, nil
}

func selects(b *wire.RevokeKeys, k *command.Key) bool {
	return (b.Owner == "" || strings.EqualFold(b.Owner, k.Owner)) &&
		(b.Project == "" || b.Project == k.Project) &&
		(b.ServiceAccount == "" || b.ServiceAccount == k.Account)
}
