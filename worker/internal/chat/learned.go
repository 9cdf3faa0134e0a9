package chat

import (
	"hash/maphash"
	"sync"
)

// learned remembers how many prompt tokens a provider counted for a body. Token
// counts are a function of the bytes and the model, so an identical body costs
// the same again, and a reservation need not be the worst case of any prompt of
// that length. It is a cache: losing it makes reservations wider, never wrong.
type learned struct {
	seed maphash.Seed

	mu     sync.Mutex
	recent map[uint64]int64 // full generations are dropped in turn: the newest half always stays
	older  map[uint64]int64
}

// learnedSize bounds a generation.
const learnedSize = 4096

func newLearned() *learned {
	return &learned{seed: maphash.MakeSeed(), recent: map[uint64]int64{}}
}

// key names a body sent to a provider's model.
func (l *learned) key(provider, model string, body []byte) uint64 {
	var h maphash.Hash
	h.SetSeed(l.seed)
	h.WriteString(provider)
	h.WriteByte(0)
	h.WriteString(model)
	h.WriteByte(0)
	h.Write(body)
	return h.Sum64()
}

// inputTokens returns the count for a body that was seen before.
func (l *learned) inputTokens(key uint64) (int64, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n, ok := l.recent[key]
	if !ok {
		n, ok = l.older[key]
	}
	return n, ok
}

// learn stores a provider's count, if it is within what was reserved for the
// prompt. One that is not believable, or no longer true, is forgotten: it must not
// narrow, nor blow up, the reservations to come.
func (l *learned) learn(key uint64, tokens, reserved int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if tokens <= 0 || tokens > reserved {
		delete(l.recent, key)
		delete(l.older, key)
		return
	}
	if len(l.recent) >= learnedSize {
		l.older, l.recent = l.recent, make(map[uint64]int64, learnedSize)
	}
	l.recent[key] = tokens
}
