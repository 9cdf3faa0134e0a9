package limits

import (
	"math/bits"
)

// sum is a counter of tokens or pico-units, >= 0 and without overflow: a month
// of money may exceed what one Money holds.
type sum struct{ hi, lo uint64 }

func (s *sum) add(n int64) {
	var carry uint64
	s.lo, carry = bits.Add64(s.lo, uint64(n), 0)
	s.hi += carry
}

// sub takes back what add added.
func (s *sum) sub(n int64) {
	var borrow uint64
	s.lo, borrow = bits.Sub64(s.lo, uint64(n), 0)
	if s.hi < borrow {
		panic("internal error: limit counter below zero")
	}
	s.hi -= borrow
}

func (s sum) plus(t sum) sum {
	lo, carry := bits.Add64(s.lo, t.lo, 0)
	return sum{s.hi + t.hi + carry, lo}
}

// minus takes a part of s out of it.
func (s *sum) minus(t sum) {
	var borrow uint64
	s.lo, borrow = bits.Sub64(s.lo, t.lo, 0)
	s.hi, borrow = bits.Sub64(s.hi, t.hi, borrow)
	if borrow != 0 {
		panic("internal error: limit counter below zero")
	}
}

// room is how much more than s fits below limit; -1 when s is above it.
func (s sum) room(limit int64) int64 {
	if s.hi > 0 || s.lo > uint64(limit) {
		return -1
	}
	return limit - int64(s.lo)
}

// count is use in one window: what is settled, and what open reservations hold.
type count struct{ used, held sum }

func (c *count) settle(held, used int64) {
	c.held.sub(held)
	c.used.add(used)
}
