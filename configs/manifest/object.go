package manifest

import (
	"cmp"
	"slices"
	"strings"
)

// Kinds are the kinds of this build in the order in which they depend on each
// other: nothing refers to a kind after its own.
func Kinds() []Kind {
	return []Kind{KindTenant, KindPlugin, KindProvider, KindRoute, KindProject, KindServiceAccount, KindPriceBook, KindPolicy}
}

// ParseKind reads a kind as people type it: any case, singular or plural.
func ParseKind(s string) (Kind, bool) {
	s = strings.ToLower(s)
	for _, k := range Kinds() {
		name := strings.ToLower(string(k))
		if s == name || s == name+"s" || k == KindPolicy && s == "policies" {
			return k, true
		}
	}
	return "", false
}

// CompareRefs orders by kind (as Kinds does), tenant, project and name.
func CompareRefs(a, b Ref) int {
	return cmp.Or(
		cmp.Compare(kindIndex(a.Kind), kindIndex(b.Kind)),
		cmp.Compare(a.Kind, b.Kind),
		cmp.Compare(a.Tenant, b.Tenant),
		cmp.Compare(a.Project, b.Project),
		cmp.Compare(a.Name, b.Name),
	)
}

// Sort orders objects by CompareRefs.
func Sort(objects []Object) {
	slices.SortFunc(objects, func(a, b Object) int { return CompareRefs(a.Ref, b.Ref) })
}

func kindIndex(k Kind) int {
	if i := slices.Index(Kinds(), k); i >= 0 {
		return i
	}
	return len(Kinds())
}

// Spec answers the object's spec as a pointer, nil unless exactly one is set
// and it is the one of its kind.
func (o Object) Spec() any {
	var set []any
	var kinds []Kind
	add := func(k Kind, present bool, spec any) {
		if present {
			set, kinds = append(set, spec), append(kinds, k)
		}
	}
	add(KindTenant, o.TenantSpec != nil, o.TenantSpec)
	add(KindProject, o.ProjectSpec != nil, o.ProjectSpec)
	add(KindServiceAccount, o.ServiceAccountSpec != nil, o.ServiceAccountSpec)
	add(KindProvider, o.ProviderSpec != nil, o.ProviderSpec)
	add(KindRoute, o.RouteSpec != nil, o.RouteSpec)
	add(KindPriceBook, o.PriceBookSpec != nil, o.PriceBookSpec)
	add(KindPlugin, o.PluginSpec != nil, o.PluginSpec)
	add(KindPolicy, o.PolicySpec != nil, o.PolicySpec)
	if len(set) != 1 || kinds[0] != o.Kind {
		return nil
	}
	return set[0]
}

// newSpec gives the object an empty spec of its kind; nil for an unknown kind.
func (o *Object) newSpec() any {
	switch o.Kind {
	case KindTenant:
		o.TenantSpec = new(Tenant)
	case KindProject:
		o.ProjectSpec = new(Project)
	case KindServiceAccount:
		o.ServiceAccountSpec = new(ServiceAccount)
	case KindProvider:
		o.ProviderSpec = new(Provider)
	case KindRoute:
		o.RouteSpec = new(Route)
	case KindPriceBook:
		o.PriceBookSpec = new(PriceBook)
	case KindPlugin:
		o.PluginSpec = new(Plugin)
	case KindPolicy:
		o.PolicySpec = new(Policy)
	}
	return o.Spec()
}
