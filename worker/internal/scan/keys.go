package scan

import (
	"bytes"
	"hash/maphash"
)

// linearKeys is how many keys of an object are compared one by one; bigger
// objects use the hash index.
const linearKeys = 8

// keySet finds equal keys within each open object. Keys of open objects are on
// one stack, so a closed object costs nothing; the index is shared, its entries
// are told apart by the object's number and never removed (MaxKeys bounds them).
type keySet struct {
	list    [][]byte // keys of the open objects, unescaped, outermost first
	total   int      // keys seen in the whole body
	objects uint32   // objects opened so far
	seed    maphash.Seed
	index   []slot // open addressing, a power of two long, at most half full
	used    int
}

// slot is one entry of the index; object 0 is an empty slot.
type slot struct{ object, hash, at uint32 }

// mark is one open object.
type mark struct {
	base   int
	object uint32
}

func (k *keySet) open() mark {
	k.objects++
	return mark{len(k.list), k.objects}
}

func (k *keySet) close(m mark) { k.list = k.list[:m.base] }

// add adds a key to an object and reports false when the object has it already.
func (k *keySet) add(m mark, key []byte) bool {
	n := len(k.list) - m.base
	if n < linearKeys {
		for _, other := range k.list[m.base:] {
			if bytes.Equal(other, key) {
				return false
			}
		}
		k.list = append(k.list, key)
		return true
	}
	if n == linearKeys {
		for i := m.base; i < len(k.list); i++ {
			k.put(m.object, i)
		}
	}
	k.list = append(k.list, key)
	return k.put(m.object, len(k.list)-1)
}

// put indexes the key at list[at], or reports false when an equal one is there.
func (k *keySet) put(object uint32, at int) bool {
	if k.index == nil {
		// The seed is random so that nobody can choose keys that collide.
		k.seed = maphash.MakeSeed()
		k.index = make([]slot, 128)
	}
	if 2*(k.used+1) > len(k.index) {
		k.grow()
	}
	e := slot{object, uint32(maphash.Bytes(k.seed, k.list[at])), uint32(at)}
	for i := k.start(e); ; i = (i + 1) % len(k.index) {
		o := k.index[i]
		if o.object == 0 {
			k.index[i] = e
			k.used++
			return true
		}
		if o.object == object && o.hash == e.hash && bytes.Equal(k.list[o.at], k.list[at]) {
			return false
		}
	}
}

// start mixes the object's number in, so that many objects with the same keys
// spread over the index.
func (k *keySet) start(e slot) int {
	return int(e.hash^e.object*0x9e3779b1) & (len(k.index) - 1)
}

func (k *keySet) grow() {
	old := k.index
	k.index = make([]slot, 2*len(old))
	for _, e := range old {
		if e.object == 0 {
			continue
		}
		i := k.start(e)
		for k.index[i].object != 0 {
			i = (i + 1) % len(k.index)
		}
		k.index[i] = e
	}
}
