package terraform_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin/admintest"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/terraform"
	"github.com/hashicorp/terraform-plugin-framework/providerserver"
	"github.com/hashicorp/terraform-plugin-go/tfprotov6"
	"github.com/hashicorp/terraform-plugin-go/tftypes"
)

// core drives the provider over its protocol as OpenTofu's core does, without a
// process: it validates, plans with the state before, and applies the plan.
type core struct {
	t       *testing.T
	server  tfprotov6.ProviderServer
	schemas map[string]*tfprotov6.Schema
}

// newCore is a provider that is configured for the fixture.
func newCore(t *testing.T, f *admintest.Fixture) *core {
	t.Helper()
	c := bareCore(t, func(string) string { return "" })
	if err := c.configure(fmt.Sprintf(`{"addrs": [%q], "token": %q}`, f.URL, admintest.Token)); err != nil {
		t.Fatal(err)
	}
	return c
}

func bareCore(t *testing.T, getenv func(string) string) *core {
	t.Helper()
	c := &core{t: t, server: providerserver.NewProtocol6(terraform.New(terraform.Config{Version: "test", Getenv: getenv}))()}
	got, err := c.server.GetProviderSchema(t.Context(), &tfprotov6.GetProviderSchemaRequest{})
	if err := failure(err, got.Diagnostics); err != nil {
		t.Fatal(err)
	}
	c.schemas = got.ResourceSchemas
	c.schemas[""] = got.Provider
	return c
}

// failures are the diagnostics of one step.
type failures []*tfprotov6.Diagnostic

func (f failures) Error() string {
	var lines []string
	for _, d := range f {
		lines = append(lines, fmt.Sprintf("%s: %s: %s", d.Attribute, d.Summary, d.Detail))
	}
	return strings.Join(lines, "\n")
}

func failure(err error, ds []*tfprotov6.Diagnostic) error {
	var bad failures
	for _, d := range ds {
		if d.Severity == tfprotov6.DiagnosticSeverityError {
			bad = append(bad, d)
		}
	}
	if err != nil || bad == nil {
		return err
	}
	return bad
}

func (c *core) typ(name string) tftypes.Object {
	return c.schemas[name].ValueType().(tftypes.Object)
}

// value makes a configuration of JSON; what it does not name is null.
func (c *core) value(name, config string) tftypes.Value {
	c.t.Helper()
	dec := json.NewDecoder(strings.NewReader(config))
	dec.UseNumber()
	var got any
	if err := dec.Decode(&got); err != nil {
		c.t.Fatalf("%s: %v", config, err)
	}
	return valueOf(c.t, c.typ(name), got)
}

func valueOf(t *testing.T, want tftypes.Type, got any) tftypes.Value {
	t.Helper()
	switch g := got.(type) {
	case nil:
		return tftypes.NewValue(want, nil)
	case []any:
		var element tftypes.Type
		switch w := want.(type) {
		case tftypes.List:
			element = w.ElementType
		case tftypes.Set:
			element = w.ElementType
		default:
			t.Fatalf("a list where a %s is wanted", want)
		}
		vs := []tftypes.Value{}
		for _, e := range g {
			vs = append(vs, valueOf(t, element, e))
		}
		return tftypes.NewValue(want, vs)
	case map[string]any:
		vs := map[string]tftypes.Value{}
		switch w := want.(type) {
		case tftypes.Map:
			for k, e := range g {
				vs[k] = valueOf(t, w.ElementType, e)
			}
		case tftypes.Object:
			for k, at := range w.AttributeTypes {
				vs[k] = valueOf(t, at, g[k])
				delete(g, k)
			}
			for k := range g {
				t.Fatalf("there is no attribute %q", k)
			}
		default:
			t.Fatalf("an object where a %s is wanted", want)
		}
		return tftypes.NewValue(want, vs)
	case json.Number:
		n, err := g.Int64()
		if err != nil {
			t.Fatal(err)
		}
		return tftypes.NewValue(want, n)
	}
	return tftypes.NewValue(want, got)
}

func pack(t *testing.T, v tftypes.Value) *tfprotov6.DynamicValue {
	t.Helper()
	d, err := tfprotov6.NewDynamicValue(v.Type(), v)
	if err != nil {
		t.Fatal(err)
	}
	return &d
}

func unpack(t *testing.T, d *tfprotov6.DynamicValue, typ tftypes.Type) tftypes.Value {
	t.Helper()
	v, err := d.Unmarshal(typ)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func (c *core) configure(config string) error {
	v := pack(c.t, c.value("", config))
	checked, err := c.server.ValidateProviderConfig(c.t.Context(), &tfprotov6.ValidateProviderConfigRequest{Config: v})
	if err := failure(err, checked.Diagnostics); err != nil {
		return err
	}
	done, err := c.server.ConfigureProvider(c.t.Context(), &tfprotov6.ConfigureProviderRequest{Config: v})
	return failure(err, done.Diagnostics)
}

// plan answers what an apply would make of the state before, and whether it is
// another object.
func (c *core) plan(name string, config, before tftypes.Value) (planned tftypes.Value, replace bool, err error) {
	c.t.Helper()
	if !config.IsNull() {
		if err := c.validate(name, config); err != nil {
			return before, false, err
		}
	}
	got, err := c.server.PlanResourceChange(c.t.Context(), &tfprotov6.PlanResourceChangeRequest{
		TypeName: name, PriorState: pack(c.t, before), Config: pack(c.t, config), ProposedNewState: pack(c.t, c.proposed(name, config, before)),
	})
	if err := failure(err, got.Diagnostics); err != nil {
		return before, false, err
	}
	return unpack(c.t, got.PlannedState, c.typ(name)), len(got.RequiresReplace) > 0, nil
}

func (c *core) validate(name string, config tftypes.Value) error {
	got, err := c.server.ValidateResourceConfig(c.t.Context(), &tfprotov6.ValidateResourceConfigRequest{
		TypeName: name, Config: pack(c.t, config),
		ClientCapabilities: &tfprotov6.ValidateResourceConfigClientCapabilities{WriteOnlyAttributesAllowed: true},
	})
	return failure(err, got.Diagnostics)
}

// proposed is what core proposes: the configuration, and for what the provider
// computes what was there before, or something unknown.
func (c *core) proposed(name string, config, before tftypes.Value) tftypes.Value {
	if config.IsNull() {
		return config
	}
	had, fields := map[string]tftypes.Value{}, map[string]tftypes.Value{}
	if err := config.As(&fields); err != nil {
		c.t.Fatal(err)
	}
	fields = maps.Clone(fields)
	if !before.IsNull() {
		if err := before.As(&had); err != nil {
			c.t.Fatal(err)
		}
	}
	for _, a := range c.schemas[name].Block.Attributes {
		switch {
		case a.WriteOnly:
			fields[a.Name] = tftypes.NewValue(a.ValueType(), nil)
		case a.Computed && fields[a.Name].IsNull() && before.IsNull():
			fields[a.Name] = tftypes.NewValue(a.ValueType(), tftypes.UnknownValue)
		case a.Computed && fields[a.Name].IsNull():
			fields[a.Name] = had[a.Name]
		}
	}
	return tftypes.NewValue(config.Type(), fields)
}

// apply plans and applies; a state of null creates, a config of null destroys.
func (c *core) apply(name string, config, before tftypes.Value) (tftypes.Value, error) {
	c.t.Helper()
	planned, replace, err := c.plan(name, config, before)
	if err != nil {
		return before, err
	}
	if replace {
		if _, err := c.apply(name, c.null(name), before); err != nil {
			return before, err
		}
		return c.apply(name, config, c.null(name))
	}
	done, err := c.server.ApplyResourceChange(c.t.Context(), &tfprotov6.ApplyResourceChangeRequest{
		TypeName: name, PriorState: pack(c.t, before), PlannedState: pack(c.t, planned), Config: pack(c.t, config),
	})
	if err := failure(err, done.Diagnostics); err != nil {
		return before, err
	}
	after := unpack(c.t, done.NewState, c.typ(name))
	if !after.IsFullyKnown() {
		c.t.Errorf("%s: not all of the state is known: %s", name, after)
	}
	c.keepsPlan(name, planned, after)
	return after, nil
}

// keepsPlan fails when what was planned is not what came of it, which core calls a
// bug of the provider.
func (c *core) keepsPlan(name string, planned, after tftypes.Value) {
	c.t.Helper()
	diffs, err := planned.Diff(after)
	if err != nil {
		c.t.Fatal(err)
	}
	for _, d := range diffs {
		if d.Value1 != nil && d.Value1.IsFullyKnown() && d.Value2 != nil {
			c.t.Errorf("%s: planned %s, then %s", name, d.Value1, d.Value2)
		}
	}
}

func (c *core) null(name string) tftypes.Value { return tftypes.NewValue(c.typ(name), nil) }

// create applies a configuration that must be accepted.
func (c *core) create(name, config string) tftypes.Value {
	c.t.Helper()
	v, err := c.apply(name, c.value(name, config), c.null(name))
	if err != nil {
		c.t.Fatalf("create %s %s: %v", name, config, err)
	}
	return v
}

func (c *core) update(name, config string, before tftypes.Value) tftypes.Value {
	c.t.Helper()
	v, err := c.apply(name, c.value(name, config), before)
	if err != nil {
		c.t.Fatalf("update %s %s: %v", name, config, err)
	}
	return v
}

func (c *core) destroy(name string, before tftypes.Value) {
	c.t.Helper()
	if _, err := c.apply(name, c.null(name), before); err != nil {
		c.t.Fatalf("destroy %s: %v", name, err)
	}
}

// refused answers the diagnostics of a configuration that must not be accepted.
func (c *core) refused(name string, config, before tftypes.Value) failures {
	c.t.Helper()
	_, err := c.apply(name, config, before)
	f, ok := err.(failures)
	if !ok {
		c.t.Fatalf("%s was accepted, or there is another error: %v", name, err)
	}
	return f
}

func (c *core) read(name string, state tftypes.Value) tftypes.Value {
	c.t.Helper()
	got, err := c.server.ReadResource(c.t.Context(), &tfprotov6.ReadResourceRequest{TypeName: name, CurrentState: pack(c.t, state)})
	if err := failure(err, got.Diagnostics); err != nil {
		c.t.Fatalf("read %s: %v", name, err)
	}
	return unpack(c.t, got.NewState, c.typ(name))
}

func (c *core) imported(name, id string) (tftypes.Value, error) {
	c.t.Helper()
	got, err := c.server.ImportResourceState(context.Background(), &tfprotov6.ImportResourceStateRequest{TypeName: name, ID: id})
	if err := failure(err, got.Diagnostics); err != nil {
		return tftypes.Value{}, err
	}
	return c.read(name, unpack(c.t, got.ImportedResources[0].State, c.typ(name))), nil
}

// unchanged fails when the configuration would change the state.
func (c *core) unchanged(name, config string, state tftypes.Value) {
	c.t.Helper()
	planned, replace, err := c.plan(name, c.value(name, config), state)
	if err != nil {
		c.t.Fatalf("plan %s: %v", name, err)
	}
	if diffs, err := state.Diff(planned); err != nil || len(diffs) > 0 || replace {
		c.t.Errorf("%s: a plan after the apply is not empty: %v %v", name, diffs, err)
	}
}

// str answers a string attribute, "" for null.
func str(t *testing.T, v tftypes.Value, name string) string {
	t.Helper()
	var fields map[string]tftypes.Value
	if err := v.As(&fields); err != nil {
		t.Fatal(err)
	}
	var s *string
	if err := fields[name].As(&s); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	if s == nil {
		return ""
	}
	return *s
}
