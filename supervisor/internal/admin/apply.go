package admin

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"slices"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"github.com/bulkhead-ai/bulkhead/configs/manifest"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/access"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin/wire"
)

// applyInput carries the plan from the guard, which records it, to the handler,
// which carries it out: both must mean the same.
type applyInput struct {
	Writing
	Body    wire.Apply
	plan    manifest.Plan
	desired []manifest.Object
	refused []manifest.Problem
}

type applyOutput struct{ Body wire.Applied }

func (a *API) applyRoutes() {
	apply := operation("apply", http.MethodPost, "/apply", "Put desired state in force, all or nothing")
	apply.MaxBodyBytes = 2 * command.MaxSize // the answer to a larger one is the same, but clearer
	guarded(a, apply, a.aboutApply, a.apply)
	guarded(a, operation("delete-object", http.MethodDelete, "/objects", "Delete one object that nothing refers to"), a.aboutDelete, a.deleteObject)
}

// aboutApply plans. Who is no platform administrator may name only objects that a
// role of theirs may write, whether they change or not: to say which of another's
// objects would change tells what is in them.
func (a *API) aboutApply(ctx context.Context, in *applyInput) (matter, error) {
	m := matter{object: "desired state"}
	refs := make([]manifest.Ref, len(in.Body.Objects))
	for i, o := range in.Body.Objects {
		refs[i] = o.Ref
	}
	m.tenants, m.platform = placesOf(refs)
	if err := a.mayWrite(ctx, "apply", &m, refs); err != nil {
		return m, err
	}
	current := a.cfg.Cluster.State().View().AllObjects()
	in.desired = slices.Clone(in.Body.Objects)
	in.refused = a.keepCredentials(current, in.desired)
	in.refused = append(in.refused, checkZones(in.desired)...)
	in.refused = append(in.refused, checkTwice(in.desired)...)
	in.plan = manifest.Diff(within(principalOf(ctx), current, m.tenants), in.desired, in.Body.Prune)
	if err := mayReach(ctx, current, in.desired); err != nil {
		return m, err
	}
	in.refused = append(in.refused, manifest.Check(manifest.Overlay(current, in.desired, in.plan.Pruned))...)
	changed := slices.Concat(in.plan.Created, in.plan.Updated, in.plan.Pruned)
	if len(in.refused) > 0 || len(changed) == 0 {
		return m, nil // the log of each place that was named tells of the try
	}
	m.tenants, m.platform = placesOf(changed)
	for _, ref := range in.plan.Created {
		if ref.Kind == manifest.KindTenant {
			m.begins = append(m.begins, bulkhead.TenantID(ref.Name))
		}
	}
	before, after := pick(current, changed), pick(in.desired, changed)
	m.before, m.after = changes{before, in.Body.DryRun}, changes{after, in.Body.DryRun}
	m.part = func(t bulkhead.TenantID) (any, any) {
		return changes{only(before, t), in.Body.DryRun}, changes{only(after, t), in.Body.DryRun}
	}
	return m, nil
}

// mayWrite refuses objects that the caller's roles do not reach. Tenants that the
// caller may not see are left to the guard, which hides them.
func (a *API) mayWrite(ctx context.Context, action string, m *matter, refs []manifest.Ref) error {
	p := principalOf(ctx)
	if slices.Contains(p.Platform, access.PlatformAdmin) {
		return nil
	}
	switch verdict, _ := a.rules[action].Decide(p, access.Matter{Tenants: m.tenants}); verdict {
	case access.Hide:
		return errHidden
	case access.Deny:
		return denied("you may not do this: %s", action)
	}
	for _, ref := range refs {
		if ref.Tenant == "" || !access.Writes(p.Tenants[ref.Tenant], ref.Kind) {
			return denied("your role may not write %s", ref)
		}
	}
	return nil
}

// mayReach keeps private addresses the platform's word: a tenant's people may keep
// a provider that reaches one, but neither make one nor move it.
func mayReach(ctx context.Context, current, desired []manifest.Object) error {
	if slices.Contains(principalOf(ctx).Platform, access.PlatformAdmin) {
		return nil
	}
	allowed := map[manifest.Ref]string{}
	for _, o := range current {
		if o.ProviderSpec != nil && o.ProviderSpec.AllowPrivate {
			allowed[o.Ref] = o.ProviderSpec.BaseURL
		}
	}
	for _, o := range desired {
		if o.ProviderSpec == nil || !o.ProviderSpec.AllowPrivate {
			continue
		}
		if url, ok := allowed[o.Ref]; !ok || url != o.ProviderSpec.BaseURL {
			return denied("only a platform administrator may let %s reach private addresses, at this base_url", o.Ref)
		}
	}
	return nil
}

// within are the objects that a plan of p may compare with, and so prune: of a
// tenant's people those of the tenants that they named and of the kinds that they
// may write. Everything else is not there for the plan.
func within(p access.Principal, current []manifest.Object, named []bulkhead.TenantID) []manifest.Object {
	if slices.Contains(p.Platform, access.PlatformAdmin) {
		return current
	}
	var out []manifest.Object
	for _, o := range current {
		if o.Tenant != "" && slices.Contains(named, o.Tenant) && access.Writes(p.Tenants[o.Tenant], o.Kind) {
			out = append(out, o)
		}
	}
	return out
}

// apply carries the plan out: it proposes only what changes. The state machine
// checks again: another apply may have come between.
func (a *API) apply(ctx context.Context, in *applyInput) (*applyOutput, error) {
	if len(in.refused) > 0 {
		return nil, refuse(in.refused)
	}
	out := &applyOutput{Body: wire.Applied{Plan: in.plan, DryRun: in.Body.DryRun}}
	if in.Body.DryRun || in.plan.Empty() {
		return out, nil
	}
	cmd := &command.Apply{Delete: in.plan.Pruned}
	for _, o := range in.desired {
		if !slices.Contains(in.plan.Unchanged, o.Ref) {
			cmd.Upsert = append(cmd.Upsert, o)
		}
	}
	touched := slices.Concat(in.plan.Created, in.plan.Updated, in.plan.Pruned)
	_, err := a.propose(ctx, "apply", in.op(), cmd, a.tenantsOf(touched)...)
	return out, err
}

type deleteInput struct {
	Writing
	Kind    string `query:"kind" required:"true" maxLength:"63"`
	Tenant  string `query:"tenant" maxLength:"63"`
	Project string `query:"project" maxLength:"63"`
	Name    string `query:"name" required:"true" maxLength:"256"`
}

func (in *deleteInput) ref() (manifest.Ref, error) {
	kind, err := parseKind(in.Kind)
	return manifest.Ref{Kind: kind, Tenant: bulkhead.TenantID(in.Tenant), Project: in.Project, Name: in.Name}, err
}

func (a *API) aboutDelete(ctx context.Context, in *deleteInput) (matter, error) {
	ref, err := in.ref()
	if err != nil {
		return matter{}, err
	}
	m := matter{object: ref.String()}
	m.tenants, m.platform = placesOf([]manifest.Ref{ref})
	if err := a.mayWrite(ctx, "delete-object", &m, []manifest.Ref{ref}); err != nil {
		return m, err
	}
	if o, _, ok := a.cfg.Cluster.State().Object(ref); ok {
		m.before = withoutSecrets(o)
	}
	return m, nil
}

func (a *API) deleteObject(ctx context.Context, in *deleteInput) (*struct{}, error) {
	ref, err := in.ref()
	if err != nil {
		return nil, err
	}
	_, err = a.propose(ctx, "delete "+string(ref.Kind), in.op(), &command.Apply{Delete: []manifest.Ref{ref}}, a.tenantsOf([]manifest.Ref{ref})...)
	return nil, err
}

// placesOf are the tenants that objects tell of, sorted, and whether the
// platform's are among them.
func placesOf(refs []manifest.Ref) (tenants []bulkhead.TenantID, platform bool) {
	for _, ref := range refs {
		if t := tenantOf(ref); t != "" {
			tenants = append(tenants, t)
		} else {
			platform = true
		}
	}
	slices.Sort(tenants)
	return slices.Compact(tenants), platform
}

// changes are objects as an event shows them.
type changes struct {
	objects []manifest.Object // without secrets
	dryRun  bool
}

// MarshalJSON implements json.Marshaler.
func (c changes) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		DryRun  bool              `json:"dry_run,omitempty"`
		Objects []manifest.Object `json:"objects"`
	}{c.dryRun, append([]manifest.Object{}, c.objects...)})
}

// brief names what does not fit, with the hash of each object.
func (c changes) brief() any {
	type digest struct {
		Object string `json:"object"`
		SHA256 string `json:"sha256"`
	}
	out := struct {
		DryRun  bool     `json:"dry_run,omitempty"`
		Count   int      `json:"count"`
		Objects []digest `json:"objects"`
	}{DryRun: c.dryRun, Count: len(c.objects), Objects: []digest{}}
	for _, o := range c.objects {
		raw, err := json.Marshal(o)
		if err != nil {
			raw = nil
		}
		sum := sha256.Sum256(raw)
		out.Objects = append(out.Objects, digest{o.Ref.String(), hex.EncodeToString(sum[:])})
	}
	return out
}

func pick(objects []manifest.Object, refs []manifest.Ref) []manifest.Object {
	wanted := make(map[manifest.Ref]bool, len(refs))
	for _, ref := range refs {
		wanted[ref] = true
	}
	var out []manifest.Object
	for _, o := range objects {
		if wanted[o.Ref] {
			out = append(out, withoutSecrets(o))
		}
	}
	manifest.Sort(out)
	return out
}

func only(objects []manifest.Object, tenant bulkhead.TenantID) []manifest.Object {
	var out []manifest.Object
	for _, o := range objects {
		if tenantOf(o.Ref) == tenant {
			out = append(out, o)
		}
	}
	return out
}
