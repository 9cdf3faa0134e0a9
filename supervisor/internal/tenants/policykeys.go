package tenants

import (
	"cmp"
	"math"
	"slices"
	"time"

	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"github.com/bulkhead-ai/bulkhead/configs/manifest"
	"github.com/bulkhead-ai/bulkhead/worker/control"
)

// maxRevoked bounds how many revoked keys a policy names, the last revoked
// ones: a worker refuses an unknown key as well, it only cannot say why.
const maxRevoked = 256

// rules lists the policies that apply to the tenant: the platform's, then its
// own. None shadows another.
func (b *builder) rules() []control.Rule {
	var out []control.Rule
	for _, o := range b.view.ObjectsOf(manifest.KindPolicy, "") {
		out = append(out, control.Rule{Name: o.Name, Spec: *o.PolicySpec})
	}
	for _, o := range b.view.ObjectsOf(manifest.KindPolicy, b.tenant) {
		out = append(out, control.Rule{Name: o.Name, Tenant: b.tenant, Spec: *o.PolicySpec})
	}
	return out
}

func (b *builder) keys(projects map[string]manifest.Project, rules []control.Rule) []control.Key {
	var valid, revoked []command.Key
	for _, k := range b.view.Keys(b.tenant) {
		if k.RevokedAt == 0 {
			valid = append(valid, k)
		} else {
			revoked = append(revoked, k)
		}
	}
	slices.SortStableFunc(revoked, func(x, y command.Key) int { return cmp.Compare(y.RevokedAt, x.RevokedAt) })
	lives := lives{projects: projects, rules: rules, known: map[[2]string]manifest.Settings{}}
	var out []control.Key
	for _, k := range append(valid, revoked[:min(len(revoked), maxRevoked)]...) {
		c := control.Key{
			ID: k.ID, Project: k.Project, Env: k.Env, Account: k.Account, Owner: k.Owner, Service: k.Service, Personal: k.Personal,
			Models: k.Models, Endpoints: k.Endpoints, Revoked: k.RevokedAt != 0,
		}
		if end := lives.end(k); end != 0 {
			c.ExpiresAt = time.UnixMilli(end).UTC()
		}
		out = append(out, c)
	}
	return out
}

// lives bounds the lives of keys by what is in force where they belong, today: a
// bound that comes later counts for the keys that are there.
type lives struct {
	projects map[string]manifest.Project
	rules    []control.Rule
	known    map[[2]string]manifest.Settings // by project and environment
}

// end is when a key ends, in Unix milliseconds; 0 is never.
func (l *lives) end(k command.Key) int64 {
	at := [2]string{k.Project, k.Env}
	s, ok := l.known[at]
	if !ok {
		s = l.projects[k.Project].Environments[k.Env].Effective(k.Env)
		for i := range l.rules {
			s = s.Under(&l.rules[i].Spec)
		}
		l.known[at] = s
	}
	life := s.KeyLife(k.Personal)
	if life == 0 {
		return k.ExpiresAt
	}
	bound := int64(math.MaxInt64)
	if ms := life.Milliseconds(); k.CreatedAt < bound-ms {
		bound = k.CreatedAt + ms
	}
	if k.ExpiresAt == 0 || bound < k.ExpiresAt {
		return bound
	}
	return k.ExpiresAt
}
