package manifest

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/bulkhead-ai/bulkhead"
)

const (
	maxEndpoints = 64
	// leastKeyLife keeps a bound from being shorter than the clocks of a cluster
	// may differ.
	leastKeyLife = time.Minute
	maxKeyLife   = 10 * 365 * 24 * time.Hour
)

func (c *object) policy(p *Policy) {
	if len(p.RequiredTags)+len(p.Models)+len(p.Endpoints) == 0 && p.Limits == nil && p.MaxKeyLife == "" && p.PersonalKeys == nil {
		c.add("spec", "narrows nothing; want required_tags, models, endpoints, limits, max_key_life or personal_keys")
	}
	c.oneOf("spec.environments", p.Environments, environments(), "is no environment")
	c.tags("spec.required_tags", p.RequiredTags)
	c.models("spec.models", p.Models)
	c.endpoints("spec.endpoints", p.Endpoints)
	c.limits("spec.limits", p.Limits)
	if p.MaxKeyLife != "" {
		c.duration("spec.max_key_life", p.MaxKeyLife, leastKeyLife, maxKeyLife)
	}
}

// environment looks at what narrows the requests and keys of an environment.
func (c *object) environment(field string, e Environment) {
	c.models(field+".models", e.Models)
	c.limits(field+".limits", e.Limits)
	c.tags(field+".required_tags", e.RequiredTags)
	if e.Log != "" && e.Log != LogFull && e.Log != LogUsage {
		c.add(field+".log", fmt.Sprintf("%.40q is no way to log; one of %s, %s", e.Log, LogFull, LogUsage))
	}
	if e.MaxKeyLife != "" {
		c.duration(field+".max_key_life", e.MaxKeyLife, leastKeyLife, maxKeyLife)
	}
}

// environments are the names that an environment may have.
func environments() []string { return []string{"prod", "test", "sandbox"} }

func (c *object) tags(field string, tags []string) {
	c.oneOf(field, tags, Tags(), "is no tag")
}

// oneOf refuses what is not among the names, and what stands twice.
func (c *object) oneOf(field string, list, names []string, what string) {
	if len(list) > maxModels {
		c.add(field, fmt.Sprintf("more than %d entries", maxModels))
		return
	}
	for i, s := range list {
		at := fmt.Sprintf("%s[%d]", field, i)
		if !slices.Contains(names, s) {
			c.add(at, fmt.Sprintf("%.80q %s; one of %s", s, what, strings.Join(names, ", ")))
		} else if slices.Contains(list[:i], s) {
			c.add(at, fmt.Sprintf("%q stands twice", s))
		}
	}
}

// endpoints looks at the form only: which ones there are is the business of the
// adapters.
func (c *object) endpoints(field string, list []string) {
	if len(list) > maxEndpoints {
		c.add(field, fmt.Sprintf("more than %d endpoints", maxEndpoints))
		return
	}
	for i, e := range list {
		at := fmt.Sprintf("%s[%d]", field, i)
		switch {
		case !endpointForm(e):
			c.add(at, fmt.Sprintf("%.80q is no endpoint such as chat/completions", e))
		case slices.Contains(list[:i], e):
			c.add(at, fmt.Sprintf("endpoint %q stands twice", e))
		}
	}
}

// endpointForm accepts names joined by slashes, without the leading /v1/.
func endpointForm(s string) bool {
	if len(s) > 64 || s == "v1" || strings.HasPrefix(s, "v1/") {
		return false
	}
	for part := range strings.SplitSeq(s, "/") {
		if !bulkhead.ValidName(strings.ReplaceAll(part, "_", "-")) {
			return false
		}
	}
	return true
}
