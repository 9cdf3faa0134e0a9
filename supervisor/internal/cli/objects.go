package cli

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/bulkhead-ai/bulkhead/configs/manifest"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin/wire"
	"github.com/spf13/cobra"
)

// owner are the flags that tell objects of one name apart.
type owner struct{ tenant, project string }

func (o *owner) flags(c *cobra.Command) {
	c.Flags().StringVar(&o.tenant, "tenant", "", "tenant that the object belongs to")
	c.Flags().StringVar(&o.project, "project", "", "project that the object belongs to")
}

func (a *app) getCommand() *cobra.Command {
	var of owner
	var unusedDays int
	c := &cobra.Command{
		Use: "get KIND [NAME]", Short: "Print desired state; KIND all prints everything, KIND orphans what nobody seems to need or to answer for",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) < 1 || len(args) > 2 {
				return usagef("%s: want KIND [NAME]; KIND is all, orphans, %s", cmd.CommandPath(), kindNames())
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 && strings.EqualFold(args[0], orphansKind) {
				return a.orphans(cmd, of.tenant, unusedDays)
			}
			kind, err := parseKind(args[0])
			if err != nil {
				return err
			}
			name := strings.Join(args[1:], "")
			cl, err := a.client()
			if err != nil {
				return err
			}
			var list wire.Objects
			q := query("kind", string(kind), "tenant", of.tenant, "project", of.project, "name", name)
			if err := cl.do(cmd.Context(), call{method: http.MethodGet, path: "/objects", query: q}, &list); err != nil {
				return err
			}
			if name != "" && len(list.Objects) == 0 {
				return fmt.Errorf("there is no %s %s", kind, name)
			}
			return a.printObjects(list.Objects, name != "" && len(list.Objects) == 1)
		},
	}
	of.flags(c)
	c.Flags().IntVar(&unusedDays, "unused-days", 90, "with orphans: what was not used for so many days is one")
	return c
}

func (a *app) deleteCommand() *cobra.Command {
	var of owner
	c := &cobra.Command{
		Use: "delete KIND NAME", Short: "Delete one object that nothing refers to", Args: exactArgs("KIND", "NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			kind, err := parseKind(args[0])
			if err != nil {
				return err
			}
			if kind == "" {
				return usagef("delete: all is no kind")
			}
			cl, err := a.client()
			if err != nil {
				return err
			}
			q := query("kind", string(kind), "tenant", of.tenant, "project", of.project, "name", args[1])
			err = cl.do(cmd.Context(), call{method: http.MethodDelete, path: "/objects", query: q}, nil)
			if err != nil && kind == manifest.KindTenant {
				err = fmt.Errorf("%w\n  to end a tenant with all that it has: bulkhead tenant delete %s --reason WHY", err, args[1])
			}
			return err
		},
	}
	of.flags(c)
	return c
}

// parseKind answers "" for all.
func parseKind(s string) (manifest.Kind, error) {
	if s == "all" {
		return "", nil
	}
	kind, ok := manifest.ParseKind(s)
	if !ok {
		return "", usagef("%q is no kind; one of all, %s", s, kindNames())
	}
	return kind, nil
}

func kindNames() string {
	var names []string
	for _, k := range manifest.Kinds() {
		names = append(names, string(k))
	}
	return strings.Join(names, ", ")
}

// query makes parameters of name-value pairs, leaving out empty values.
func query(pairs ...string) url.Values {
	q := url.Values{}
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			q.Set(pairs[i], pairs[i+1])
		}
	}
	return q
}

// document is an object as a manifest writes it.
type document struct {
	Kind     manifest.Kind     `json:"kind"`
	Metadata map[string]string `json:"metadata"`
	Spec     any               `json:"spec"`
}

func (a *app) printObjects(objects []manifest.Object, single bool) error {
	t := table{columns: []string{"kind", "tenant", "project", "name", "about"}}
	docs := make([]document, 0, len(objects))
	for _, o := range objects {
		t.add(string(o.Kind), string(o.Tenant), o.Project, o.Name, about(o))
		meta := map[string]string{"name": o.Name}
		if o.Tenant != "" {
			meta["tenant"] = string(o.Tenant)
		}
		if o.Project != "" {
			meta["project"] = o.Project
		}
		docs = append(docs, document{o.Kind, meta, o.Spec()})
	}
	switch {
	case a.output == yamlOut:
		return manifest.Encode(a.streams.Out, objects)
	case single:
		return a.print(t, docs[0])
	}
	return a.print(t, docs)
}

// about is what tells an object from others of its kind at a glance.
func about(o manifest.Object) string {
	switch o.Kind {
	case manifest.KindTenant:
		return firstOf(o.TenantSpec.Tier, "standard") + ", " + o.TenantSpec.Owner
	case manifest.KindProject:
		var envs []string
		for _, env := range []string{"prod", "test", "sandbox"} {
			if _, ok := o.ProjectSpec.Environments[env]; ok {
				envs = append(envs, env)
			}
		}
		return strings.Join(envs, " ")
	case manifest.KindServiceAccount:
		return o.ServiceAccountSpec.Owner
	case manifest.KindProvider:
		return strings.TrimSpace(o.ProviderSpec.Adapter + " " + o.ProviderSpec.BaseURL)
	case manifest.KindRoute:
		var targets []string
		for _, t := range o.RouteSpec.Targets {
			targets = append(targets, t.Provider+"/"+t.Model)
		}
		return strings.Join(targets, " ")
	case manifest.KindPriceBook:
		return o.PriceBookSpec.Currency + ", " + strconv.Itoa(len(o.PriceBookSpec.Prices)) + " prices"
	case manifest.KindPlugin:
		return fmt.Sprintf("sha256:%.12s", o.PluginSpec.SHA256)
	case manifest.KindPolicy:
		return "for " + firstOf(strings.Join(o.PolicySpec.Environments, " "), "all environments")
	}
	return ""
}
