package strictyaml

import (
	"encoding"
	"fmt"
	"reflect"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
)

// Decode fills the struct that into points to and answers everything that does
// not fit it; nil means all of it fits. Fields are named by their yaml tag; a
// field without one cannot be set. Fields that the document leaves out keep
// their value.
func (d *Doc) Decode(into any) Errors {
	c := decoding{doc: d}
	c.value(d.body, reflect.ValueOf(into).Elem(), "")
	return c.sorted()
}

// Part decodes one top-level field of the document, for documents whose other
// fields decide its type. It reports nothing when the field is missing.
func (d *Doc) Part(field string, into any) Errors {
	c := decoding{doc: d}
	for _, kv := range entries(d.body) {
		if key, ok := keyText(kv); ok && key == field {
			c.doc.place[field] = positionOf(kv.Key)
			c.value(kv.Value, reflect.ValueOf(into).Elem(), field)
			break
		}
	}
	return c.sorted()
}

// Raw is a field whose content Decode leaves for Part.
type Raw struct{ Present bool }

type decoding struct {
	doc  *Doc
	errs Errors
}

func (c *decoding) sorted() Errors {
	sort.SliceStable(c.errs, func(i, j int) bool { return c.errs[i].Line < c.errs[j].Line })
	return c.errs
}

func (c *decoding) fail(n ast.Node, path, reason string) {
	c.errs = append(c.errs, c.doc.file.errorAt(positionOf(n), path, reason))
}

// value decodes n into v. The recursion is bounded by the Go type, not by the
// document.
func (c *decoding) value(n ast.Node, v reflect.Value, path string) {
	if n == nil {
		return
	}
	if raw, ok := v.Addr().Interface().(*Raw); ok {
		raw.Present = n.Type() != ast.NullType
		return
	}
	if n.Type() == ast.NullType {
		c.null(n, v, path)
		return
	}
	if v.Kind() == reflect.Pointer {
		if v.IsNil() {
			v.Set(reflect.New(v.Type().Elem()))
		}
		c.value(n, v.Elem(), path)
		return
	}
	if u, ok := v.Addr().Interface().(encoding.TextUnmarshaler); ok {
		c.text(n, u, path)
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		c.structure(n, v, path)
	case reflect.Map:
		c.mapping(n, v, path)
	case reflect.Slice:
		c.sequence(n, v, path)
	default:
		c.scalar(n, v, path)
	}
}

// null accepts "limits:" with nothing after it as an empty block. An empty
// scalar is refused: "cost:" must not silently mean "no limit".
func (c *decoding) null(n ast.Node, v reflect.Value, path string) {
	t := v.Type()
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	_, isText := reflect.New(t).Interface().(encoding.TextUnmarshaler)
	switch t.Kind() {
	case reflect.Struct, reflect.Map, reflect.Slice:
		if !isText {
			return
		}
	}
	c.fail(n, path, "has no value; leave the field out or give it one")
}

func (c *decoding) structure(n ast.Node, v reflect.Value, path string) {
	if !isMapping(n) {
		c.fail(n, path, "want a block of fields, got "+describe(n))
		return
	}
	fields := fieldsOf(v.Type())
	c.eachEntry(n, path, func(kv *ast.MappingValueNode, key, at string) {
		index, ok := fields[key]
		if !ok {
			c.fail(kv.Key, at, "unknown field"+suggestion(key, fields))
			return
		}
		c.value(kv.Value, v.Field(index), at)
	})
}

func (c *decoding) mapping(n ast.Node, v reflect.Value, path string) {
	if !isMapping(n) {
		c.fail(n, path, "want a block of names, got "+describe(n))
		return
	}
	v.Set(reflect.MakeMap(v.Type()))
	c.eachEntry(n, path, func(kv *ast.MappingValueNode, key, at string) {
		elem := reflect.New(v.Type().Elem()).Elem()
		c.value(kv.Value, elem, at)
		v.SetMapIndex(reflect.ValueOf(key).Convert(v.Type().Key()), elem)
	})
}

// eachEntry visits the entries of a mapping, refusing keys that are no plain
// text or stand twice.
func (c *decoding) eachEntry(n ast.Node, path string, visit func(kv *ast.MappingValueNode, key, at string)) {
	seen := map[string]bool{}
	for _, kv := range entries(n) {
		key, ok := keyText(kv)
		if !ok {
			c.fail(kv.Key, path, "want a name as key")
			continue
		}
		at := join(path, key)
		if seen[key] {
			c.fail(kv.Key, at, "given twice")
			continue
		}
		seen[key] = true
		c.doc.place[at] = positionOf(kv.Key)
		visit(kv, key, at)
	}
}

func (c *decoding) sequence(n ast.Node, v reflect.Value, path string) {
	seq, ok := n.(*ast.SequenceNode)
	if !ok {
		c.fail(n, path, "want a list, got "+describe(n))
		return
	}
	out := reflect.MakeSlice(v.Type(), len(seq.Values), len(seq.Values))
	for i, item := range seq.Values {
		at := fmt.Sprintf("%s[%d]", path, i)
		c.doc.place[at] = positionOf(item)
		c.value(item, out.Index(i), at)
	}
	v.Set(out)
}

func (c *decoding) text(n ast.Node, u encoding.TextUnmarshaler, path string) {
	s, ok := textOf(n)
	if !ok {
		c.fail(n, path, "want a value, got "+describe(n))
		return
	}
	if err := u.UnmarshalText([]byte(s)); err != nil {
		c.fail(n, path, printable(err.Error(), 200))
	}
}

func (c *decoding) scalar(n ast.Node, v reflect.Value, path string) {
	switch {
	case v.Type() == reflect.TypeFor[time.Duration]():
		s, ok := textOf(n)
		d, err := time.ParseDuration(s)
		if !ok || err != nil {
			c.fail(n, path, `want a duration such as "30s" or "5m", got `+describe(n))
			return
		}
		v.SetInt(int64(d))
	case v.Kind() == reflect.String:
		s, ok := textOf(n)
		if !ok {
			c.fail(n, path, "want text, got "+describe(n)+" (quote it if it is text)")
			return
		}
		v.SetString(s)
	case v.Kind() == reflect.Bool:
		b, ok := n.(*ast.BoolNode)
		if !ok {
			c.fail(n, path, "want true or false, got "+describe(n))
			return
		}
		v.SetBool(b.Value)
	case v.CanInt():
		c.integer(n, v, path)
	default:
		panic("internal error: strictyaml cannot decode " + v.Type().String())
	}
}

// integer takes plain decimals only: 0x10, 010 and 1e3 mean different numbers to
// different readers.
func (c *decoding) integer(n ast.Node, v reflect.Value, path string) {
	in, ok := n.(*ast.IntegerNode)
	if !ok {
		c.fail(n, path, "want a whole number, got "+describe(n))
		return
	}
	i, err := strconv.ParseInt(in.Token.Value, 10, v.Type().Bits())
	if err != nil || strconv.FormatInt(i, 10) != in.Token.Value {
		c.fail(n, path, "want a plain decimal number in range, got "+describe(n))
		return
	}
	v.SetInt(i)
}

func fieldsOf(t reflect.Type) map[string]int {
	out := map[string]int{}
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("yaml"), ",")
		if name != "" && name != "-" {
			out[name] = i
		}
	}
	return out
}

func join(path, key string) string {
	key = printable(key, 80)
	if path == "" {
		return key
	}
	return path + "." + key
}
