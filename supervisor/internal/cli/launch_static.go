package cli

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/configs/manifest"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin/wire"
)

// environment is what is in force in an environment of a team.
type environment struct {
	team     team
	name     string
	spec     manifest.Environment
	settings manifest.Settings
	models   []string // that it may name, sorted
}

// environments answers prod and the one for tests: test, or sandbox where there
// is none.
func (l *launcher) environments(t team) (out []environment, problem string) {
	if _, ok := l.object(manifest.KindTenant, "", string(t.tenant)); !ok {
		return nil, fmt.Sprintf("there is no tenant %s, or it is not yours to see", t.tenant)
	}
	project, ok := l.object(manifest.KindProject, t.tenant, t.project)
	if !ok {
		return nil, fmt.Sprintf("tenant %s has no project %s", t.tenant, t.project)
	}
	envs := project.ProjectSpec.Environments
	low := "test"
	if _, ok := envs[low]; !ok {
		low = "sandbox"
	}
	for _, name := range []string{"prod", low} {
		spec, ok := envs[name]
		if !ok {
			return nil, "it has no prod, or neither test nor sandbox: what is tried out would run in production"
		}
		out = append(out, environment{t, name, spec, spec.Effective(name).Under(l.policies(t.tenant)...), l.models(t.tenant, name, spec)})
	}
	return out, ""
}

// policies are the platform's and the tenant's.
func (l *launcher) policies(tenant bulkhead.TenantID) (out []*manifest.Policy) {
	for _, o := range l.objects {
		if o.Kind == manifest.KindPolicy && (o.Tenant == "" || o.Tenant == tenant) {
			out = append(out, o.PolicySpec)
		}
	}
	return out
}

// models are the routed ones that an environment and the policies let through.
func (l *launcher) models(tenant bulkhead.TenantID, env string, spec manifest.Environment) []string {
	out := map[string]bool{}
	for _, o := range l.objects {
		if o.Kind != manifest.KindRoute || o.Tenant != "" && o.Tenant != tenant {
			continue
		}
		out[o.Name] = len(spec.Models) == 0 || slices.Contains(spec.Models, o.Name)
		for _, p := range l.policies(tenant) {
			out[o.Name] = out[o.Name] && (!p.Applies(env) || p.AllowsModel(o.Name))
		}
	}
	maps.DeleteFunc(out, func(_ string, allowed bool) bool { return !allowed })
	return slices.Sorted(maps.Keys(out))
}

// pick answers the model to ask in an environment: the one that was named, else
// one that all of them allow, else any.
func (l *launcher) pick(of environment, all []environment) string {
	if l.model != "" {
		return l.model
	}
	for _, m := range of.models {
		if !slices.ContainsFunc(all, func(e environment) bool { return !slices.Contains(e.models, m) }) {
			return m
		}
	}
	return firstOf(of.models...)
}

// static are the checks of what is in force, without a request.
func (l *launcher) static(t team, envs []environment) {
	for _, e := range envs {
		l.limitsPresent(e)
	}
	keys := slices.DeleteFunc(slices.Clone(l.keys[t.tenant]), func(k wire.Key) bool { return k.Project != t.project })
	uses := map[string][]string{} // environments by account
	var endless, ownerless []string
	for _, k := range keys {
		if !slices.Contains(uses[k.ServiceAccount], k.Env) {
			uses[k.ServiceAccount] = append(uses[k.ServiceAccount], k.Env)
		}
		if k.Env != "prod" && k.ExpiresAt.IsZero() {
			endless = append(endless, string(k.ID))
		}
		if !manifest.ValidOwner(k.Owner) {
			ownerless = append(ownerless, string(k.ID))
		}
	}
	var shared []string
	for _, account := range slices.Sorted(maps.Keys(uses)) {
		if len(uses[account]) > 1 {
			shared = append(shared, fmt.Sprintf("service account %s has keys in %s: a limit or a revoke for one hits the other", account, strings.Join(uses[account], " and ")))
		}
	}
	l.judge(t, "", "keys apart", fmt.Sprintf("%d keys, no service account in two environments", len(keys)), shared...)
	l.judge(t, "", "keys end", "no key outside prod lives for ever", listed("keys outside prod that never expire", endless))
	l.judge(t, "", "keys owned", "every key has an owner", listed("keys whose owner is no e-mail address", ownerless))
}

func listed(what string, items []string) string {
	if len(items) == 0 {
		return ""
	}
	return what + ": " + strings.Join(items, ", ")
}

// limitsPresent wants a limit that is the environment's own: under a shared one,
// test can use up what prod needs.
func (l *launcher) limitsPresent(e environment) {
	const check = "limits present"
	if limited(e.spec.Limits) {
		l.add(e.team, e.name, check, passed, "the environment has limits of its own")
		return
	}
	for _, o := range l.objects {
		p := o.PolicySpec
		if o.Kind == manifest.KindPolicy && (o.Tenant == "" || o.Tenant == e.team.tenant) && len(p.Environments) == 1 && p.Applies(e.name) && limited(p.Limits) {
			l.add(e.team, e.name, check, passed, "policy %s limits it", o.Name)
			return
		}
	}
	l.add(e.team, e.name, check, failing, "the environment has no limits of its own: it can use up what the others need")
}

func limited(m *manifest.Limits) bool {
	if m == nil {
		return false
	}
	window := func(w *manifest.Window) bool {
		return w != nil && (w.Requests != nil || w.Tokens != nil || w.Cost != nil)
	}
	return m.RequestsPerMinute != nil || m.TokensPerMinute != nil || m.Concurrency != nil || window(m.Daily) || window(m.Monthly)
}

// owners compares the teams: somebody who answers for everything answers for
// nothing, and a key that two teams share is nobody's.
func (l *launcher) owners() {
	answers := map[string][]string{} // teams by owner
	for _, t := range l.teams {
		people := map[string]bool{}
		for _, k := range l.keys[t.tenant] {
			if k.Project == t.project {
				people[strings.ToLower(k.Owner)] = true
			}
		}
		for _, o := range l.objects {
			if o.Kind == manifest.KindServiceAccount && o.Tenant == t.tenant && o.Project == t.project && o.ServiceAccountSpec.Service != launchName {
				people[strings.ToLower(o.ServiceAccountSpec.Owner)] = true
			}
		}
		tenant, ok := l.object(manifest.KindTenant, "", string(t.tenant))
		if !ok {
			continue
		}
		alone := len(people) > 0
		for p := range people {
			answers[p] = append(answers[p], t.String())
			alone = alone && strings.EqualFold(p, tenant.TenantSpec.Owner)
		}
		problem := ""
		if alone {
			problem = tenant.TenantSpec.Owner + " owns the tenant, every service account and every key: nobody else would notice"
		}
		l.judge(t, "", "owners apart", "services have owners beside the tenant's", problem)
	}
	for _, who := range slices.Sorted(maps.Keys(answers)) {
		if teams := answers[who]; len(teams) > 1 {
			l.found = append(l.found, finding{strings.Join(teams, " "), "", "owners apart", failing, printable(who) + " answers for keys or service accounts of several teams"})
		}
	}
}
