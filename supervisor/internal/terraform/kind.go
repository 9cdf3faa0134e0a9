package terraform

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/configs/manifest"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema"
	"github.com/hashicorp/terraform-plugin-go/tftypes"
)

// kind says what the resource of a kind of object looks like.
type kind struct {
	resource string // without the provider's name
	kind     manifest.Kind
	spec     func() attributes
	field    string   // of manifest.Object, in JSON
	tenant   presence // whether the object belongs to one
	project  presence
	doc      string
}

type presence int

const (
	never presence = iota
	maybe
	always
)

// kinds are all that have a resource. Plugins have none: they are files, which
// bulkhead plugin add registers.
func kinds() []kind {
	return []kind{
		{"tenant", manifest.KindTenant, tenantSpec, "tenant_spec", never, never,
			"A team: the unit of isolation, access and accounting. A tenant that has data is not destroyed by this resource but by `bulkhead tenant delete`, which says who wanted it and proves that it was done."},
		{"project", manifest.KindProject, projectSpec, "project_spec", always, never, "A product of a tenant, with its environments."},
		{"service_account", manifest.KindServiceAccount, accountSpec, "service_account_spec", always, always, "A bot, pipeline or integration; keys belong to it."},
		{"provider", manifest.KindProvider, providerSpec, "provider_spec", maybe, never, "An upstream service; without `tenant` it is offered to all."},
		{"route", manifest.KindRoute, routeSpec, "route_spec", maybe, never, "Maps what clients name as the model to providers; without `tenant` for all."},
		{"policy", manifest.KindPolicy, policySpec, "policy_spec", maybe, never, "Narrows what a tenant may do, or, without `tenant`, every tenant. All that apply must hold."},
		{"price_book", manifest.KindPriceBook, priceBookSpec, "price_book_spec", never, never, "Prices of models. The book named `default` is in force."},
	}
}

func (k kind) schema() schema.Schema {
	out := schema.Schema{MarkdownDescription: k.doc, Attributes: k.spec()}
	out.Attributes[idAttribute] = identifier("What `import` takes: the names of tenant, project and object that it has, joined by slashes.")
	out.Attributes[nameAttribute] = identity("Its name.", true)
	if k.tenant != never {
		out.Attributes[tenantAttribute] = identity("Name of the tenant that it belongs to.", k.tenant == always)
	}
	if k.project != never {
		out.Attributes[projectAttribute] = identity("Name of the project that it belongs to.", true)
	}
	return out
}

// specOnly leaves out what is no field of the spec.
func specOnly(fields map[string]tftypes.Value) map[string]tftypes.Value {
	out := maps.Clone(fields)
	for _, name := range []string{idAttribute, nameAttribute, tenantAttribute, projectAttribute, credentialAttribute, versionAttribute, sealedAttribute} {
		delete(out, name)
	}
	return out
}

// ref reads which object a configuration, plan or state is of.
func (k kind) ref(v tftypes.Value) (manifest.Ref, error) {
	fields := fieldsOf(v)
	ref := manifest.Ref{Kind: k.kind}
	var err error
	read := func(name string) (s string) {
		f, ok := fields[name]
		if !ok || err != nil || f.IsNull() {
			return ""
		}
		if err = f.As(&s); err != nil {
			err = fmt.Errorf("%s: %w", name, err)
		}
		return s
	}
	ref.Name, ref.Tenant, ref.Project = read(nameAttribute), bulkhead.TenantID(read(tenantAttribute)), read(projectAttribute)
	return ref, err
}

// desired makes the object that a plan wants.
func (k kind) desired(plan tftypes.Value) (manifest.Object, error) {
	ref, err := k.ref(plan)
	if err != nil {
		return manifest.Object{}, err
	}
	spec := map[string]any{}
	for name, field := range specOnly(fieldsOf(plan)) {
		got, err := encode(field)
		if err != nil {
			return manifest.Object{}, fmt.Errorf("%s: %w", name, err)
		}
		if got != nil {
			spec[name] = got
		}
	}
	raw, err := json.Marshal(map[string]any{k.field: spec})
	if err != nil {
		return manifest.Object{}, fmt.Errorf("encode %s: %w", ref, err)
	}
	o := manifest.Object{}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&o); err != nil {
		return o, fmt.Errorf("%s: %w", ref, err)
	}
	o.Ref = ref
	return o, nil
}

// state is what the server has, as a value; prior says how it was written.
func (k kind) state(o manifest.Object, want tftypes.Object, prior tftypes.Value) (tftypes.Value, error) {
	raw, err := json.Marshal(o.Spec())
	if err != nil {
		return prior, fmt.Errorf("read %s: %w", o.Ref, err)
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	spec := map[string]any{}
	if err := dec.Decode(&spec); err != nil {
		return prior, fmt.Errorf("read %s: %w", o.Ref, err)
	}
	spec[idAttribute], spec[nameAttribute] = id(o.Ref), o.Name
	if o.Tenant != "" {
		spec[tenantAttribute] = string(o.Tenant)
	}
	if o.Project != "" {
		spec[projectAttribute] = o.Project
	}
	if p := o.ProviderSpec; p != nil {
		spec[sealedAttribute] = p.Credential != nil
		if version := fieldsOf(prior)[versionAttribute]; version.Type() != nil {
			v, err := encode(version)
			if err != nil {
				return prior, err
			}
			spec[versionAttribute] = v // it is only here
		}
	}
	v, err := decodeObject(want, prior, spec)
	if err != nil {
		return v, fmt.Errorf("read %s: %w", o.Ref, err)
	}
	return v, nil
}

// id names an object within its kind. A route's name may hold slashes, so one of
// the platform then begins with one.
func id(ref manifest.Ref) string {
	parts := []string{string(ref.Tenant), ref.Project, ref.Name}
	if ref.Tenant == "" && strings.Contains(ref.Name, "/") {
		return "/" + ref.Name
	}
	return strings.Join(slices.DeleteFunc(parts, func(s string) bool { return s == "" }), "/")
}

// parseID is the inverse of id.
func (k kind) parseID(s string) (manifest.Ref, error) {
	ref := manifest.Ref{Kind: k.kind}
	want, ok := "NAME", true
	var tenant string
	switch {
	case k.project == always:
		want, ok = "TENANT/PROJECT/NAME", strings.Count(s, "/") == 2
		tenant, s, _ = strings.Cut(s, "/")
		ref.Project, ref.Name, _ = strings.Cut(s, "/")
		ok = ok && ref.Project != ""
	case k.tenant == always:
		want = "TENANT/NAME"
		tenant, ref.Name, ok = strings.Cut(s, "/")
	case k.tenant == maybe:
		want = "TENANT/NAME, or NAME for one of the platform"
		if tenant, ref.Name, ok = strings.Cut(s, "/"); !ok {
			tenant, ref.Name, ok = "", s, true
		}
	default:
		ref.Name, ok = s, !strings.Contains(s, "/")
	}
	ref.Tenant = bulkhead.TenantID(tenant)
	if !ok || ref.Name == "" || k.tenant == always && tenant == "" {
		return ref, fmt.Errorf("%q is no id of a %s: want %s", s, k.kind, want)
	}
	return ref, nil
}
