package manifest

import (
	"cmp"
	"slices"
	"time"
)

// The tags that a request may be required to carry. Owner, cost centre and
// service come with its key; feature and user from the headers X-Bulkhead-Feature
// and X-Bulkhead-User.
const (
	TagOwner      = "owner"
	TagCostCenter = "cost_center"
	TagService    = "service"
	TagFeature    = "feature"
	TagUser       = "user"
)

// Tags lists the tags in the order in which they are asked for.
func Tags() []string { return []string{TagOwner, TagCostCenter, TagService, TagFeature, TagUser} }

// What an environment logs of a request.
const (
	LogFull  = "full"
	LogUsage = "usage" // without user and feature
)

// DefaultPersonalLife bounds a personal key where nothing shorter is written.
const DefaultPersonalLife = 30 * 24 * time.Hour

// Settings are what is in force in an environment.
type Settings struct {
	Env             string
	Log             string        // LogFull or LogUsage
	PersonalKeys    bool          // people may have keys of their own
	MaxKeyLife      time.Duration // of any key, from its creation; 0 = no bound
	MaxPersonalLife time.Duration // of a personal key, from its creation; > 0
	RequiredTags    []string      // in the order of Tags
}

// Effective answers what is in force in the environment of that name: what is
// written, and the default of the name for the rest. prod is strict (everything
// logged, no personal keys), test takes personal keys, sandbox logs less and
// requires only an owner. Tags that are written add to the default ones.
//
// A name that is none is treated as prod. A duration that does not parse, which
// Check refuses, counts as the shortest.
func (e Environment) Effective(name string) Settings {
	s := Settings{
		Env: name, Log: LogFull, PersonalKeys: name == "test" || name == "sandbox",
		MaxPersonalLife: DefaultPersonalLife, RequiredTags: []string{TagOwner},
	}
	if name == "sandbox" {
		s.Log = LogUsage
	} else {
		s.RequiredTags = append(s.RequiredTags, TagCostCenter, TagService)
	}
	s.Log = cmp.Or(e.Log, s.Log)
	if e.PersonalKeys != nil {
		s.PersonalKeys = *e.PersonalKeys
	}
	s.shorten(e.MaxKeyLife)
	s.require(e.RequiredTags)
	return s
}

// Under answers the settings as the policies that apply to the environment
// narrow them; others change nothing.
func (s Settings) Under(policies ...*Policy) Settings {
	s.RequiredTags = slices.Clone(s.RequiredTags)
	for _, p := range policies {
		if !p.Applies(s.Env) {
			continue
		}
		s.PersonalKeys = s.PersonalKeys && (p.PersonalKeys == nil || *p.PersonalKeys)
		s.shorten(p.MaxKeyLife)
		s.require(p.RequiredTags)
	}
	return s
}

// KeyLife is how long a key may live from its creation; 0 = no bound.
func (s Settings) KeyLife(personal bool) time.Duration {
	if personal {
		return s.MaxPersonalLife
	}
	return s.MaxKeyLife
}

func (s *Settings) shorten(life string) {
	if life == "" {
		return
	}
	d, err := time.ParseDuration(life)
	if err != nil || d <= 0 {
		d = 1
	}
	if s.MaxKeyLife == 0 || d < s.MaxKeyLife {
		s.MaxKeyLife = d
	}
	s.MaxPersonalLife = min(s.MaxPersonalLife, d)
}

func (s *Settings) require(tags []string) {
	if len(tags) == 0 {
		return
	}
	have := s.RequiredTags
	s.RequiredTags = nil
	for _, tag := range Tags() {
		if slices.Contains(have, tag) || slices.Contains(tags, tag) {
			s.RequiredTags = append(s.RequiredTags, tag)
		}
	}
}

// Applies reports whether the policy counts for the requests and keys of an
// environment.
func (p *Policy) Applies(env string) bool {
	return len(p.Environments) == 0 || slices.Contains(p.Environments, env)
}

// AllowsModel reports whether the policy lets requests name the model.
func (p *Policy) AllowsModel(model string) bool {
	return len(p.Models) == 0 || slices.Contains(p.Models, model)
}

// AllowsEndpoint reports whether the policy lets requests use the endpoint.
func (p *Policy) AllowsEndpoint(endpoint string) bool {
	return len(p.Endpoints) == 0 || slices.Contains(p.Endpoints, endpoint)
}

// ServiceName is what an account of that name is for.
func (a ServiceAccount) ServiceName(name string) string { return cmp.Or(a.Service, name) }
