package terraform

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/big"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/hashicorp/terraform-plugin-go/tftypes"
)

// Schemas have the names and the form of the JSON of package manifest, so one
// translation between values and JSON serves every kind.

// encode answers a value as what encoding/json writes; what is null is left out.
func encode(v tftypes.Value) (any, error) {
	switch {
	case !v.IsKnown():
		return nil, errors.New("a value is not known")
	case v.IsNull():
		return nil, nil
	}
	switch v.Type().(type) {
	case tftypes.Object, tftypes.Map:
		return encodeFields(v)
	case tftypes.List, tftypes.Set:
		return encodeList(v)
	}
	switch {
	case v.Type().Is(tftypes.String):
		var s string
		err := v.As(&s)
		return s, err
	case v.Type().Is(tftypes.Bool):
		var b bool
		err := v.As(&b)
		return b, err
	case v.Type().Is(tftypes.Number):
		var f big.Float
		if err := v.As(&f); err != nil {
			return nil, err
		}
		return json.Number(f.Text('f', -1)), nil
	}
	return nil, fmt.Errorf("a value of type %s has no JSON", v.Type())
}

func encodeFields(v tftypes.Value) (any, error) {
	var fields map[string]tftypes.Value
	if err := v.As(&fields); err != nil {
		return nil, err
	}
	out := map[string]any{}
	for name, field := range fields {
		got, err := encode(field)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		switch {
		case got != nil:
			out[name] = got
		case v.Type().Is(tftypes.Map{}):
			return nil, fmt.Errorf("[%q] must not be null; leave it out", name)
		}
	}
	return out, nil
}

func encodeList(v tftypes.Value) (any, error) {
	var elements []tftypes.Value
	if err := v.As(&elements); err != nil {
		return nil, err
	}
	out := make([]any, 0, len(elements))
	for i, element := range elements {
		got, err := encode(element)
		if err == nil && got == nil {
			err = errors.New("must not be null; leave it out")
		}
		if err != nil {
			return nil, fmt.Errorf("[%d] %w", i, err)
		}
		out = append(out, got)
	}
	return out, nil
}

// decode answers what the server has as a value of the type. Where both mean the
// same (nothing and an empty list, 25 and 25.00) it is written as in prior, which
// is what the configuration said.
func decode(name string, want tftypes.Type, prior tftypes.Value, got any) (tftypes.Value, error) {
	if got == nil {
		if empty(prior) {
			return prior, nil
		}
		return tftypes.NewValue(want, nil), nil
	}
	v, err := decodeKnown(name, want, prior, got)
	if err != nil {
		return v, fmt.Errorf("%s: %w", name, err)
	}
	return v, nil
}

func decodeKnown(name string, want tftypes.Type, prior tftypes.Value, got any) (tftypes.Value, error) {
	none := tftypes.NewValue(want, nil)
	switch t := want.(type) {
	case tftypes.Object:
		return decodeObject(t, prior, got)
	case tftypes.Map:
		return decodeMap(t, prior, got)
	case tftypes.List:
		elements, err := decodeElements(t.ElementType, prior, got)
		if err != nil {
			return none, err
		}
		return tftypes.NewValue(want, elements), nil
	case tftypes.Set:
		elements, err := decodeElements(t.ElementType, none, got)
		if err != nil {
			return none, err
		}
		return tftypes.NewValue(want, elements), nil
	}
	switch g := got.(type) {
	case string:
		if want.Is(tftypes.String) {
			if name == costAttribute && sameMoney(prior, g) {
				return prior, nil
			}
			return tftypes.NewValue(want, g), nil
		}
	case bool:
		if want.Is(tftypes.Bool) {
			return tftypes.NewValue(want, g), nil
		}
	case json.Number:
		if n, err := g.Int64(); err == nil && want.Is(tftypes.Number) {
			return tftypes.NewValue(want, n), nil
		}
	}
	return none, fmt.Errorf("the server has a %T, this provider wants a %s; one of them is too old", got, want)
}

func decodeObject(want tftypes.Object, prior tftypes.Value, got any) (tftypes.Value, error) {
	g, ok := got.(map[string]any)
	if !ok {
		return tftypes.NewValue(want, nil), fmt.Errorf("the server has a %T, this provider wants an object", got)
	}
	had := fieldsOf(prior)
	fields := map[string]tftypes.Value{}
	for name, t := range want.AttributeTypes {
		v, err := decode(name, t, had[name], g[name])
		if err != nil {
			return v, err
		}
		fields[name] = v
	}
	return tftypes.NewValue(want, fields), nil
}

func decodeMap(want tftypes.Map, prior tftypes.Value, got any) (tftypes.Value, error) {
	g, ok := got.(map[string]any)
	if !ok {
		return tftypes.NewValue(want, nil), fmt.Errorf("the server has a %T, this provider wants a map", got)
	}
	had := fieldsOf(prior)
	elements := map[string]tftypes.Value{}
	for key, element := range g {
		v, err := decode("["+key+"]", want.ElementType, had[key], element)
		if err != nil {
			return v, err
		}
		elements[key] = v
	}
	return tftypes.NewValue(want, elements), nil
}

func decodeElements(want tftypes.Type, prior tftypes.Value, got any) ([]tftypes.Value, error) {
	g, ok := got.([]any)
	if !ok {
		return nil, fmt.Errorf("the server has a %T, this provider wants a list", got)
	}
	var had []tftypes.Value
	if prior.IsFullyKnown() && !prior.IsNull() {
		if err := prior.As(&had); err != nil {
			return nil, err
		}
	}
	out := make([]tftypes.Value, 0, len(g))
	for i, element := range g {
		var before tftypes.Value
		if i < len(had) {
			before = had[i]
		}
		v, err := decode(fmt.Sprintf("[%d]", i), want, before, element)
		if err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, nil
}

// fieldsOf are the fields of an object or the elements of a map; of anything
// else, none. They are the value's own and not to be changed.
func fieldsOf(v tftypes.Value) map[string]tftypes.Value {
	var fields map[string]tftypes.Value
	if v.Type() == nil || !v.IsKnown() || v.IsNull() || v.As(&fields) != nil {
		return nil
	}
	return fields
}

// empty reports whether JSON leaves the value out though somebody wrote it.
func empty(v tftypes.Value) bool {
	if v.Type() == nil || !v.IsKnown() || v.IsNull() {
		return false
	}
	var elements []tftypes.Value
	switch got, err := encode(v); {
	case err != nil:
		return false
	case got == "" || got == false || got == json.Number("0"):
		return true
	case v.Type().Is(tftypes.List{}) || v.Type().Is(tftypes.Set{}):
		return v.As(&elements) == nil && len(elements) == 0
	case v.Type().Is(tftypes.Map{}):
		return len(fieldsOf(v)) == 0
	}
	return false
}

// sameMoney reports whether two decimals are the same amount.
func sameMoney(prior tftypes.Value, got string) bool {
	var had string
	if prior.Type() == nil || !prior.IsKnown() || prior.IsNull() || prior.As(&had) != nil {
		return false
	}
	a, errA := bulkhead.ParseMoney(had)
	b, errB := bulkhead.ParseMoney(got)
	return errA == nil && errB == nil && a == b
}
