package manifest

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

func TestPlacement(t *testing.T) {
	const text = "kind: Tenant\nmetadata: {name: a}\nspec:\n  owner: a@b\n  tier: dedicated\n  placement: {node: n1, labels: {zone: a, bank.example/gpu: \"\"}}\n  cost_center: CC-1\n"
	objects := decode(t, text)
	p := objects[0].TenantSpec.Placement
	if p.Node != "n1" || len(p.Labels) != 2 || p.Labels["zone"] != "a" {
		t.Fatalf("got %+v", p)
	}
	if problems := Check(objects); problems != nil {
		t.Errorf("check: %v", problems)
	}
	var out bytes.Buffer
	if err := Encode(&out, objects); err != nil {
		t.Fatal(err)
	}
	if again := decode(t, out.String()); !Equal(again[0], objects[0]) {
		t.Errorf("written as\n%s", out.String())
	}
	shared := decode(t, "kind: Tenant\nmetadata: {name: a}\nspec: {owner: a@b, cost_center: CC-1, placement: {labels: {zone: a}}}\n")
	if problems := Check(shared); problems != nil {
		t.Errorf("labels of a standard tenant: %v", problems)
	}
	// What is in force already can lose its tier only together with its pin.
	objects[0].TenantSpec.Tier = "standard"
	if problems := Check(objects); len(problems) != 1 || problems[0].Field != "spec.placement.node" {
		t.Errorf("a pinned standard tenant: %v", problems)
	}
}

func TestCheckLabels(t *testing.T) {
	many := map[string]string{}
	for i := range maxLabels {
		many[fmt.Sprint("l", i)] = strings.Repeat("v", maxLabelBytes)
	}
	if err := CheckLabels(many); err != nil {
		t.Errorf("as many as there may be: %v", err)
	}
	many["one-more"] = ""
	for name, labels := range map[string]map[string]string{
		"too many": many, "no name": {"": "a"}, "long name": {strings.Repeat("n", maxLabelBytes+1): ""},
		"name": {"a:b": ""}, "value": {"a": "é"}, "long value": {"a": strings.Repeat("v", maxLabelBytes+1)},
	} {
		if err := CheckLabels(labels); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	// Nodes apply the same refusal, so it must not follow the order of the map.
	two := map[string]string{"b b": "", "a a": ""}
	for range 20 {
		if err := CheckLabels(two); !strings.Contains(err.Error(), `"a a"`) {
			t.Fatalf("complains of %v first", err)
		}
	}
}
