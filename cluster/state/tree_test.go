package state

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// The tree against a map: same content, sorted order, old versions untouched,
// and a shape that depends on the keys alone.
func TestTreeIsAnImmutableSortedMap(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		want := map[string]int{}
		var now tree[int]
		type version struct {
			tree tree[int]
			want map[string]int
		}
		var past []version
		for i := range rapid.IntRange(0, 200).Draw(rt, "steps") {
			key := fmt.Sprintf("k%02d", rapid.IntRange(0, 60).Draw(rt, "key"))
			if rapid.IntRange(0, 2).Draw(rt, "del") == 0 {
				now = now.del(key)
				delete(want, key)
			} else {
				now = now.put(key, i)
				want[key] = i
			}
			if i%17 == 0 {
				past = append(past, version{now, maps.Clone(want)})
			}
		}
		past = append(past, version{now, want})
		for _, v := range past {
			sameContent(rt, v.tree, v.want)
		}
		sameShape(rt, now.root, rebuilt(rt, now).root)
	})
}

func sameContent(rt *rapid.T, got tree[int], want map[string]int) {
	keys := slices.Sorted(maps.Keys(want))
	var seen []string
	got.scan("", func(key string, val int) bool {
		if val != want[key] {
			rt.Fatalf("%s = %d, want %d", key, val, want[key])
		}
		seen = append(seen, key)
		return true
	})
	if !slices.Equal(seen, keys) || got.len() != len(keys) {
		rt.Fatalf("keys %v (%d), want %v", seen, got.len(), keys)
	}
	if len(keys) > 0 && got.first() != keys[0] {
		rt.Fatalf("first %q, want %q", got.first(), keys[0])
	}
	for _, key := range append(keys, "absent") {
		val, ok := got.get(key)
		if wantVal, wantOK := want[key]; val != wantVal || ok != wantOK {
			rt.Fatalf("get %s = %d, %v", key, val, ok)
		}
	}
	for _, p := range []string{"k", "k1", "k60", "z"} {
		n := 0
		got.prefix(p, func(string, int) bool { n++; return true })
		wantN := 0
		for _, key := range keys {
			if len(key) >= len(p) && key[:len(p)] == p {
				wantN++
			}
		}
		if n != wantN {
			rt.Fatalf("prefix %s: %d keys, want %d", p, n, wantN)
		}
	}
}

func rebuilt(rt *rapid.T, t tree[int]) tree[int] {
	var b builder[int]
	t.scan("", func(key string, val int) bool {
		if err := b.add(key, val); err != nil {
			rt.Fatal(err)
		}
		return true
	})
	return b.tree()
}

func sameShape(rt *rapid.T, a, b *node[int]) {
	if a == nil || b == nil {
		if a != b {
			rt.Fatal("two trees of the same keys have different shapes")
		}
		return
	}
	if a.key != b.key || a.val != b.val {
		rt.Fatalf("%s=%d where the other has %s=%d", a.key, a.val, b.key, b.val)
	}
	sameShape(rt, a.left, b.left)
	sameShape(rt, a.right, b.right)
}

func TestBuilderRefusesDisorder(t *testing.T) {
	var b builder[int]
	if err := b.add("b", 1); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"b", "a", ""} {
		if b.add(key, 2) == nil {
			t.Errorf("%q after \"b\" was taken", key)
		}
	}
}

func depth[V any](n *node[V]) int {
	if n == nil {
		return 0
	}
	return 1 + max(depth(n.left), depth(n.right))
}

// Sequential keys are what a naive tree dies of.
func TestTreeStaysShallow(t *testing.T) {
	var tr tree[int]
	for i := range 1 << 14 {
		tr = tr.put(fmt.Sprintf("%08d", i), i)
	}
	if d := depth(tr.root); d > 50 {
		t.Errorf("%d levels for %d keys", d, tr.len())
	}
}
