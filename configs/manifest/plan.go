package manifest

import (
	"encoding/json"
	"slices"
	"strings"
)

// Plan says what applying a set would do. All lists are sorted by CompareRefs.
type Plan struct {
	Created   []Ref `json:"created"`
	Updated   []Ref `json:"updated"`
	Unchanged []Ref `json:"unchanged"`
	Pruned    []Ref `json:"pruned"`
}

// Empty reports whether applying would change nothing.
func (p Plan) Empty() bool { return len(p.Created)+len(p.Updated)+len(p.Pruned) == 0 }

// Diff compares the desired objects with those in force. With prune, every
// object in force that is not desired is to go, except plugins: they are
// registered by bulkhead plugin add, not by a file.
func Diff(current, desired []Object, prune bool) Plan {
	p := Plan{Created: []Ref{}, Updated: []Ref{}, Unchanged: []Ref{}, Pruned: []Ref{}}
	have, want := byRef(current), map[Ref]bool{}
	for _, o := range desired {
		want[o.Ref] = true
		old, ok := have[o.Ref]
		switch {
		case !ok:
			p.Created = append(p.Created, o.Ref)
		case Equal(old, o):
			p.Unchanged = append(p.Unchanged, o.Ref)
		default:
			p.Updated = append(p.Updated, o.Ref)
		}
	}
	for _, o := range current {
		if prune && !want[o.Ref] && o.Kind != KindPlugin {
			p.Pruned = append(p.Pruned, o.Ref)
		}
	}
	for _, refs := range [][]Ref{p.Created, p.Updated, p.Unchanged, p.Pruned} {
		slices.SortFunc(refs, CompareRefs)
	}
	return p
}

// Overlay answers the complete set after the upserts and deletions, sorted.
func Overlay(current, upsert []Object, remove []Ref) []Object {
	all := byRef(current)
	for _, ref := range remove {
		delete(all, ref)
	}
	for _, o := range upsert {
		all[o.Ref] = o
	}
	out := make([]Object, 0, len(all))
	for _, o := range all {
		out = append(out, o)
	}
	Sort(out)
	return out
}

// Equal compares two objects by their JSON form, the one that is replicated.
func Equal(a, b Object) bool {
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && string(x) == string(y)
}

func byRef(objects []Object) map[Ref]Object {
	m := make(map[Ref]Object, len(objects))
	for _, o := range objects {
		m[o.Ref] = o
	}
	return m
}

// String lists what would change, a line each: "+ Tenant acme". Unchanged
// objects are left out.
func (p Plan) String() string {
	var b strings.Builder
	for _, part := range []struct {
		mark string
		refs []Ref
	}{{"+ ", p.Created}, {"~ ", p.Updated}, {"- ", p.Pruned}} {
		for _, ref := range part.refs {
			b.WriteString(part.mark + ref.String() + "\n")
		}
	}
	return b.String()
}
