package limits

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/bulkhead-ai/bulkhead/configs/manifest"
	"github.com/bulkhead-ai/bulkhead/worker/control"
)

// rulesOf lists the policies that have limits. A policy is named together with
// the environments that it counts: with others it is another count.
func rulesOf(p *control.Policy) map[Scope]*manifest.Limits {
	m := map[Scope]*manifest.Limits{}
	for i := range p.Rules {
		r := &p.Rules[i]
		if r.Spec.Limits == nil {
			continue
		}
		envs := slices.Sorted(slices.Values(r.Spec.Environments))
		m[Scope{Level: Policy, Project: strings.Join(envs, ","), Name: r.ID()}] = r.Spec.Limits
	}
	return m
}

// counts reports whether a policy's scope counts the requests of an environment.
func (s Scope) counts(env string) bool {
	if s.Project == "" {
		return true
	}
	for e := range strings.SplitSeq(s.Project, ",") {
		if e == env {
			return true
		}
	}
	return false
}

// setRules puts the limits of policies in force. Unlike the other levels a
// policy is forgotten at once when it is gone: what it counted is counted in the
// environments too, and from there it begins when it comes back. Callers hold mu.
func (l *Limiter) setRules(want map[Scope]*manifest.Limits) {
	l.keepRules(want)
	l.want, l.rules = want, l.rules[:0]
	for _, scope := range slices.SortedFunc(maps.Keys(want), compareScopes) {
		lv := l.levels[scope]
		if lv == nil {
			lv = l.begin(scope)
		}
		lv.lim = compile(want[scope])
		l.rules = append(l.rules, lv)
	}
}

func compareScopes(a, b Scope) int {
	return cmp.Or(cmp.Compare(a.Level, b.Level), cmp.Compare(a.Project, b.Project), cmp.Compare(a.Name, b.Name))
}

// keepRules forgets the policies that are not in force.
func (l *Limiter) keepRules(want map[Scope]*manifest.Limits) {
	for scope, lv := range l.levels {
		if _, ok := want[scope]; !ok && scope.Level == Policy {
			lv.lim = compile(nil) // open reservations still settle there, and may be extended
			delete(l.levels, scope)
		}
	}
}

// begin makes the level of a policy: it has counted what is known of the
// environments that it counts, and holds what their open reservations hold.
//
// Use of a project that was deleted is known to policies over all environments
// only, because the tenant's own level remembers it.
func (l *Limiter) begin(scope Scope) *level {
	lv := &level{scope: scope}
	var slots []slot
	for from, base := range l.levels {
		if !scope.sums(from) || base.day == nil {
			continue // nothing has been used there
		}
		lv.roll(&l.cal)
		base.minute.expire(l.clock)
		for i := range base.minute.n {
			slots = append(slots, *base.minute.slot(i))
		}
		lv.day.include(base.day)
		lv.month.include(base.month)
	}
	slices.SortFunc(slots, func(a, b slot) int { return cmp.Compare(a.last, b.last) })
	for _, s := range slots {
		lv.minute.include(&s)
	}
	for _, r := range l.open {
		if scope.counts(r.ask.Env) {
			l.join(r, lv)
		}
	}
	l.levels[scope] = lv
	return lv
}

// sums reports whether a policy's count is the sum of other levels of which from
// is one.
func (s Scope) sums(from Scope) bool {
	if s.Project == "" {
		return from.Level == Tenant
	}
	return from.Level == Environment && s.counts(from.Name)
}

// join has an open reservation hold at one more level what it holds at those
// that the level sums up.
func (l *Limiter) join(r *Reservation, lv *level) {
	from := &r.shares[Tenant]
	if lv.scope.Project != "" {
		from = &r.shares[Environment]
	}
	s := share{slot: from.slot, extraSlot: from.extraSlot, extra: from.extra, paceBase: -1}
	s.restore(r, lv, from.day.key, from.month.key)
	r.shares = append(r.shares, s)
}

// include adds what is settled in another window, if it is of the same time.
func (w *window) include(o *window) {
	if o == nil || o.key != w.key {
		return
	}
	w.requests += o.requests
	w.tokens.used = w.tokens.used.plus(o.tokens.used)
	w.cost.used = w.cost.used.plus(o.cost.used)
}

// include adds what is settled in a slot that is not older than the newest here.
func (m *minute) include(o *slot) {
	s := m.now(o.last)
	s.requests += o.requests
	s.tokens.used = s.tokens.used.plus(o.tokens.used)
	m.requests += o.requests
	m.tokens.used = m.tokens.used.plus(o.tokens.used)
}

// takeRules takes the policies out, so that a snapshot can bring their counts.
func (l *Limiter) takeRules() map[Scope]*manifest.Limits {
	m := l.want
	l.keepRules(nil)
	return m
}

// Scopes lists all that a request counts in: the four scopes and the policies in
// force.
func (l *Limiter) Scopes(project, env, account string) []Scope {
	base := Scopes(project, env, account)
	l.mu.Lock()
	defer l.mu.Unlock()
	out := append(make([]Scope, 0, len(base)+len(l.rules)), base[:]...)
	for _, lv := range l.rules {
		if lv.scope.counts(env) {
			out = append(out, lv.scope)
		}
	}
	return out
}
