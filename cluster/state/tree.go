package state

// tree is an immutable ordered map from strings: put and del return a new tree
// that shares all but the changed path (about log2(n) nodes) with the old one.
// So publishing a version is one pointer, a snapshot costs nothing, and
// readers need no lock.
//
// It is a treap whose priorities are hashes of the keys: its shape depends on
// its keys alone, not on the order in which they came.
type tree[V any] struct {
	root *node[V]
	n    int
}

type node[V any] struct {
	key         string
	val         V
	prio        uint64
	left, right *node[V]
}

// len is the number of keys.
func (t tree[V]) len() int { return t.n }

// get answers the value of key.
func (t tree[V]) get(key string) (val V, ok bool) {
	for n := t.root; n != nil; {
		switch {
		case key == n.key:
			return n.val, true
		case key < n.key:
			n = n.left
		default:
			n = n.right
		}
	}
	return val, false
}

// put returns a tree in which key has the value val.
func (t tree[V]) put(key string, val V) tree[V] {
	root, grown := insert(t.root, &node[V]{key: key, val: val, prio: priority(key)})
	if grown {
		return tree[V]{root, t.n + 1}
	}
	return tree[V]{root, t.n}
}

// del returns a tree without key.
func (t tree[V]) del(key string) tree[V] {
	root, gone := remove(t.root, key)
	if gone {
		return tree[V]{root, t.n - 1}
	}
	return t
}

// scan calls fn for each key >= from in order until fn answers false.
func (t tree[V]) scan(from string, fn func(key string, val V) bool) {
	scan(t.root, from, fn)
}

// prefix calls fn for each key that starts with p, in order, until fn answers
// false.
func (t tree[V]) prefix(p string, fn func(key string, val V) bool) {
	t.scan(p, func(key string, val V) bool {
		return len(key) >= len(p) && key[:len(p)] == p && fn(key, val)
	})
}

// first answers the smallest key, "" of an empty tree.
func (t tree[V]) first() (key string) {
	for n := t.root; n != nil; n = n.left {
		key = n.key
	}
	return key
}

func scan[V any](n *node[V], from string, fn func(string, V) bool) bool {
	if n == nil {
		return true
	}
	if n.key < from {
		return scan(n.right, from, fn)
	}
	return scan(n.left, from, fn) && fn(n.key, n.val) && scan(n.right, from, fn)
}

// insert puts the fresh node x below n and reports whether its key is new.
func insert[V any](n, x *node[V]) (*node[V], bool) {
	if n == nil {
		return x, true
	}
	if x.key == n.key {
		x.left, x.right = n.left, n.right
		return x, false
	}
	if above(x, n) { // a present key is never below x: equal keys have equal priorities
		x.left, x.right = split(n, x.key)
		return x, true
	}
	c := *n
	var grown bool
	if x.key < n.key {
		c.left, grown = insert(n.left, x)
	} else {
		c.right, grown = insert(n.right, x)
	}
	return &c, grown
}

func remove[V any](n *node[V], key string) (*node[V], bool) {
	if n == nil {
		return nil, false
	}
	if key == n.key {
		return join(n.left, n.right), true
	}
	c := *n
	var gone bool
	if key < n.key {
		c.left, gone = remove(n.left, key)
	} else {
		c.right, gone = remove(n.right, key)
	}
	if !gone {
		return n, false
	}
	return &c, true
}

// split parts n into the keys below and above key, which it does not hold.
func split[V any](n *node[V], key string) (l, r *node[V]) {
	if n == nil {
		return nil, nil
	}
	c := *n
	if n.key < key {
		c.right, r = split(n.right, key)
		return &c, r
	}
	l, c.left = split(n.left, key)
	return l, &c
}

// join merges two trees; every key of l is below every key of r.
func join[V any](l, r *node[V]) *node[V] {
	switch {
	case l == nil:
		return r
	case r == nil:
		return l
	case above(l, r):
		c := *l
		c.right = join(l.right, r)
		return &c
	default:
		c := *r
		c.left = join(l, r.left)
		return &c
	}
}

// above says which node is the parent; the key settles ties so that the shape
// stays a function of the keys.
func above[V any](a, b *node[V]) bool {
	return a.prio > b.prio || a.prio == b.prio && a.key < b.key
}

// priority is FNV-1a with a final mix, which spreads keys that differ in their
// last bytes only.
func priority(key string) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(key) {
		h = (h ^ uint64(key[i])) * 1099511628211
	}
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>27) * 0x94d049bb133111eb
	return h ^ h>>31
}
