package admin

import (
	"context"
	"crypto/subtle"
	"fmt"
	"net/http"
	"slices"
	"time"
	_ "time/tzdata" // a node without zone files must not refuse what another accepts

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/configs/manifest"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin/wire"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/seal"
)

type selectInput struct {
	Kind    string `query:"kind" json:"kind,omitempty" maxLength:"63" doc:"such as Tenant; default: all"`
	Tenant  string `query:"tenant" json:"tenant,omitempty" maxLength:"63" doc:"only this tenant's objects, and the tenant"`
	Project string `query:"project" json:"project,omitempty" maxLength:"63"`
	Name    string `query:"name" json:"name,omitempty" maxLength:"256"`
}

type objectsOutput struct{ Body wire.Objects }

func (a *API) objectRoutes() {
	guarded(a, operation("list-objects", http.MethodGet, "/objects", "List desired state"),
		func(ctx context.Context, in *selectInput) (matter, error) {
			m := a.ofRows(ctx, "list-objects", in.Tenant)
			m.object, m.after = "desired state", in
			return m, nil
		}, a.listObjects)
	a.applyRoutes()
}

// listObjects answers, to a tenant's people, that tenant's objects. Those of the
// platform tell of addresses and prices that are not theirs.
func (a *API) listObjects(ctx context.Context, in *selectInput) (*objectsOutput, error) {
	kind, err := parseKind(in.Kind)
	if err != nil {
		return nil, err
	}
	p, rule := principalOf(ctx), a.rules["list-objects"]
	out := &objectsOutput{Body: wire.Objects{Objects: []manifest.Object{}}}
	for _, o := range a.cfg.Cluster.State().View().AllObjects() {
		if !rule.Admits(p, tenantOf(o.Ref), "", "") {
			continue
		}
		ofTenant := in.Tenant == "" || string(o.Tenant) == in.Tenant || o.Kind == manifest.KindTenant && o.Name == in.Tenant
		if ofTenant && (kind == "" || o.Kind == kind) && (in.Project == "" || o.Project == in.Project) && (in.Name == "" || o.Name == in.Name) {
			out.Body.Objects = append(out.Body.Objects, withoutSecrets(o))
		}
	}
	manifest.Sort(out.Body.Objects)
	return out, nil
}

// tenantOf is the tenant that an object tells of, empty for one of the platform.
func tenantOf(ref manifest.Ref) bulkhead.TenantID {
	if ref.Kind == manifest.KindTenant {
		return bulkhead.TenantID(ref.Name)
	}
	return ref.Tenant
}

func parseKind(s string) (manifest.Kind, error) {
	if s == "" {
		return "", nil
	}
	kind, ok := manifest.ParseKind(s)
	if !ok {
		return "", invalid("kind", fmt.Sprintf("%.40q is not known", s))
	}
	return kind, nil
}

// withoutSecrets leaves of a credential only that there is one: not even its
// ciphertext is for reading.
func withoutSecrets(o manifest.Object) manifest.Object {
	if p := o.ProviderSpec; p != nil && p.Credential != nil {
		open := *p
		open.Credential = &manifest.Credential{}
		o.ProviderSpec = &open
	}
	return o
}

// keepCredentials replaces a credential that is the stored one, sealed anew, by
// the stored one. Sealing the same secret twice gives different bytes, and
// applying a file twice must change nothing. A provider that names no credential
// keeps its own, since what get prints names none and must apply as it is; but
// not at another address, which nobody gave it to.
func (a *API) keepCredentials(current, desired []manifest.Object) []manifest.Problem {
	var problems []manifest.Problem
	stored := map[manifest.Ref]*manifest.Provider{}
	for _, o := range current {
		if p := o.ProviderSpec; p != nil && p.Credential != nil {
			stored[o.Ref] = p
		}
	}
	for i, o := range desired {
		p, old := o.ProviderSpec, stored[o.Ref]
		if p == nil || p.Credential == nil && old == nil {
			continue
		}
		same := p.Credential == nil && p.BaseURL == old.BaseURL
		if p.Credential != nil {
			var sealed []byte
			if old != nil {
				sealed = old.Credential.Sealed
			}
			var err error
			if same, err = a.sameSecret(o.Ref, sealed, p.Credential.Sealed); err != nil {
				problems = append(problems, manifest.Problem{Ref: o.Ref, Field: "spec.credential", Reason: "does not open with this cluster's key"})
				continue
			}
		}
		if same {
			kept := *p
			kept.Credential = &manifest.Credential{Sealed: old.Credential.Sealed}
			desired[i].ProviderSpec = &kept
		}
	}
	return problems
}

func (a *API) sameSecret(ref manifest.Ref, stored, sent []byte) (bool, error) {
	if len(sent) == 0 {
		return false, nil // Check says that it is not sealed
	}
	binding := seal.CredentialContext(ref.Tenant, ref.Name)
	b, err := a.cfg.Vault.Open(binding, sent)
	if err != nil {
		return false, fmt.Errorf("open credential of %s: %w", ref, err)
	}
	defer clear(b)
	if len(stored) == 0 {
		return false, nil
	}
	s, err := a.cfg.Vault.Open(binding, stored)
	if err != nil {
		return false, nil // the stored one is of a former key: the new one replaces it
	}
	defer clear(s)
	return subtle.ConstantTimeCompare(s, b) == 1, nil
}

// checkZones does what manifest.Check must not: look at the list of zones.
func checkZones(objects []manifest.Object) []manifest.Problem {
	var problems []manifest.Problem
	for _, o := range objects {
		if t := o.TenantSpec; t != nil && t.TimeZone != "" {
			if _, err := time.LoadLocation(t.TimeZone); err != nil {
				problems = append(problems, manifest.Problem{Ref: o.Ref, Field: "spec.time_zone", Reason: fmt.Sprintf("there is no time zone %.64q", t.TimeZone)})
			}
		}
	}
	return problems
}

func checkTwice(objects []manifest.Object) []manifest.Problem {
	var problems []manifest.Problem
	seen := map[manifest.Ref]bool{}
	for _, o := range objects {
		if seen[o.Ref] {
			problems = append(problems, manifest.Problem{Ref: o.Ref, Field: "metadata.name", Reason: "stands twice in the set"})
		}
		seen[o.Ref] = true
	}
	return problems
}

// tenantsOf are the tenants whose workers a change of the objects concerns: all
// of them when an object of the platform is among them.
func (a *API) tenantsOf(refs []manifest.Ref) []bulkhead.TenantID {
	var out []bulkhead.TenantID
	for _, ref := range refs {
		switch {
		case ref.Kind == manifest.KindTenant:
			out = append(out, bulkhead.TenantID(ref.Name))
		case ref.Tenant != "":
			out = append(out, ref.Tenant)
		default:
			return a.cfg.Cluster.State().Tenants()
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}
