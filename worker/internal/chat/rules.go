package chat

import (
	"cmp"
	"strings"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/configs/manifest"
	"github.com/bulkhead-ai/bulkhead/plugins/provider"
	"github.com/bulkhead-ai/bulkhead/worker/control"
)

// ground is what holds for every request of one environment of a project. It is
// immutable.
type ground struct {
	models     []string // empty = all
	costCenter string
	settings   manifest.Settings
	rules      []*control.Rule // the policies that apply
}

func newGround(p *control.Policy, project, env string) *ground {
	spec := p.Projects[project]
	e := spec.Environments[env]
	g := &ground{models: e.Models, costCenter: cmp.Or(spec.CostCenter, p.Tenant.CostCenter), settings: e.Effective(env)}
	for i := range p.Rules {
		if r := &p.Rules[i]; r.Spec.Applies(env) {
			g.rules = append(g.rules, r)
			g.settings = g.settings.Under(&r.Spec)
		}
	}
	return g
}

// ground is where a key's requests stand.
func (v *view) ground(k *control.Key) *ground {
	if g := v.grounds[[2]string{k.Project, k.Env}]; g != nil {
		return g
	}
	return newGround(v.policy, k.Project, k.Env) // an environment that is gone has no rights of its own
}

// allowsModel reports whether environment and policies let a request name a model.
func (g *ground) allowsModel(model string) bool {
	return inScope(g.models, model) && g.against(model) == nil
}

// against is the first policy that forbids a model.
func (g *ground) against(model string) *control.Rule {
	for _, r := range g.rules {
		if !r.Spec.AllowsModel(model) {
			return r
		}
	}
	return nil
}

// allows checks what the policies say of an endpoint and a model.
func (g *ground) allows(e provider.Endpoint, model string) error {
	for _, r := range g.rules {
		if !r.Spec.AllowsEndpoint(string(e)) {
			return bulkhead.E(bulkhead.PermissionDenied, "endpoint_not_allowed", "The policy "+r.ID()+" does not allow this endpoint.")
		}
	}
	if r := g.against(model); r != nil {
		err := bulkhead.E(bulkhead.PermissionDenied, "model_not_allowed", "The policy "+r.ID()+" does not allow this model.")
		err.Param = "model"
		return err
	}
	return nil
}

// bearer is whose request it is, a service's key or a person, as far as rules
// ask for it.
type bearer struct {
	owner, service string
	feature, user  string // what the request says of itself
	personal       bool
}

// bearer reads the tags of an identified request.
func (q *request) bearer() bearer {
	b := bearer{
		owner: q.key.Owner, service: q.key.Service, personal: q.key.Personal || q.head.Member != nil,
		feature: strings.TrimSpace(q.r.Header.Get(control.HeaderFeature)),
		user:    strings.TrimSpace(q.r.Header.Get(control.HeaderUser)),
	}
	if a := q.view.accounts[[2]string{q.key.Project, q.key.Account}]; a != nil && b.service == "" {
		b.service = a.Spec.ServiceName(a.Name)
	}
	return b
}

// admits checks what does not depend on the request's body: whether people may
// come in on their own, and that no required tag is missing.
func (g *ground) admits(b bearer) error {
	if b.personal && !g.settings.PersonalKeys {
		return bulkhead.E(bulkhead.PermissionDenied, "personal_key_not_allowed",
			"The environment "+g.settings.Env+" takes keys of services only, not those of people.")
	}
	for _, tag := range g.settings.RequiredTags {
		if g.tag(b, tag) == "" {
			err := bulkhead.E(bulkhead.PermissionDenied, "missing_tag", "The request lacks the required tag "+tag+": "+whence(tag))
			err.Param = tag
			return err
		}
	}
	return nil
}

func (g *ground) tag(b bearer, tag string) string {
	switch tag {
	case manifest.TagOwner:
		return b.owner
	case manifest.TagCostCenter:
		return g.costCenter
	case manifest.TagService:
		return b.service
	case manifest.TagFeature:
		return b.feature
	case manifest.TagUser:
		return b.user
	}
	return "" // a tag that this build does not know cannot be there
}

// whence tells where a tag comes from.
func whence(tag string) string {
	switch tag {
	case manifest.TagFeature:
		return "send the header " + control.HeaderFeature + "."
	case manifest.TagUser:
		return "send the header " + control.HeaderUser + "."
	case manifest.TagCostCenter:
		return "the tenant or the project must name one."
	}
	return "the API key must name one."
}

// unlabel leaves the tags of a request out of the log where the environment logs
// usage only.
func (q *request) unlabel() {
	v := q.view
	if v == nil {
		v, _ = q.h.current.get()
	}
	if q.line.Project != "" && v.ground(&control.Key{Project: q.line.Project, Env: q.line.Env}).settings.Log == manifest.LogUsage {
		q.line.User, q.line.Feature = "", ""
	}
}
