package state

import "fmt"

// builder makes a tree from keys in strictly ascending order, each in constant
// amortised time. It keeps the right spine: a new node takes the place of the
// spine's nodes that belong below it.
type builder[V any] struct {
	spine []*node[V]
	last  string
	n     int
}

// add appends a key; one that is not above the last is an error.
func (b *builder[V]) add(key string, val V) error {
	if b.n > 0 && key <= b.last {
		return fmt.Errorf("key %.80q after %.80q", key, b.last)
	}
	x := &node[V]{key: key, val: val, prio: priority(key)}
	for len(b.spine) > 0 && above(x, b.spine[len(b.spine)-1]) {
		x.left = b.spine[len(b.spine)-1]
		b.spine = b.spine[:len(b.spine)-1]
	}
	if len(b.spine) > 0 {
		b.spine[len(b.spine)-1].right = x
	}
	b.spine = append(b.spine, x)
	b.last = key
	b.n++
	return nil
}

// tree returns what was added. The builder must not be used afterwards.
func (b *builder[V]) tree() tree[V] {
	if len(b.spine) == 0 {
		return tree[V]{}
	}
	return tree[V]{b.spine[0], b.n}
}
