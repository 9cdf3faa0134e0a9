package limits

import "time"

const (
	minuteSpan = int64(time.Minute)
	slotSpan   = int64(100 * time.Millisecond)
)

// minute is the use in the last 60 seconds of the limiter's clock. Its slots are
// ordered by time; at most 601 are alive at once.
type minute struct {
	slots    []slot // a ring
	head, n  int
	requests int64
	tokens   count
}

// slot is what was reserved within 100 ms. It leaves as a whole when the last of
// it is 60 s old, so the window errs by at most one slot, to the safe side.
type slot struct {
	at       int64 // clock / slotSpan
	last     int64 // clock of its last addition
	requests int64
	tokens   count
}

func (m *minute) slot(i int) *slot { return &m.slots[(m.head+i)%len(m.slots)] }

// expire drops the slots that have left the window.
func (m *minute) expire(clock int64) {
	for m.n > 0 {
		s := m.slot(0)
		if clock-s.last < minuteSpan {
			return
		}
		m.requests -= s.requests
		m.tokens.used.minus(s.tokens.used)
		m.tokens.held.minus(s.tokens.held)
		m.head = (m.head + 1) % len(m.slots)
		m.n--
	}
}

// now returns the slot of the clock, which never goes back.
func (m *minute) now(clock int64) *slot {
	at := clock / slotSpan
	if m.n > 0 {
		if s := m.slot(m.n - 1); s.at == at {
			s.last = clock
			return s
		}
	}
	if m.n == len(m.slots) {
		m.grow()
	}
	m.n++
	s := m.slot(m.n - 1)
	*s = slot{at: at, last: clock}
	return s
}

func (m *minute) grow() {
	bigger := make([]slot, max(16, 2*len(m.slots)))
	for i := range m.n {
		bigger[i] = *m.slot(i)
	}
	m.slots, m.head = bigger, 0
}

// find returns the slot of a time, or nil when it has left the window.
func (m *minute) find(at int64) *slot {
	lo, hi := 0, m.n
	for lo < hi {
		mid := (lo + hi) / 2
		if m.slot(mid).at < at {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo < m.n {
		if s := m.slot(lo); s.at == at {
			return s
		}
	}
	return nil
}

// reserve adds to the current slot and returns its time.
func (m *minute) reserve(clock, requests, held int64) int64 {
	s := m.now(clock)
	s.requests += requests
	s.tokens.held.add(held)
	m.requests += requests
	m.tokens.held.add(held)
	return s.at
}

// settle turns what was held in a slot into what was used there. A slot that has
// left takes it along.
func (m *minute) settle(at, held, used int64) {
	if s := m.find(at); s != nil {
		s.tokens.settle(held, used)
		m.tokens.settle(held, used)
	}
}

// forget takes a request out of its slot, as if it had never been.
func (m *minute) forget(at, requests int64) {
	if s := m.find(at); s != nil {
		s.requests -= requests
		m.requests -= requests
	}
}

// requestsFreeIn is how long until n requests have left the window; 0 when n is
// not above 0, never more than a minute.
func (m *minute) requestsFreeIn(clock, n int64) time.Duration {
	for i := 0; i < m.n && n > 0; i++ {
		s := m.slot(i)
		if n -= s.requests; n <= 0 {
			return time.Duration(s.last + minuteSpan - clock)
		}
	}
	return 0
}

// tokensFreeIn is how long until the settled tokens have fallen to at most left.
func (m *minute) tokensFreeIn(clock, left int64) time.Duration {
	used := m.tokens.used
	for i := 0; i < m.n && used.room(left) < 0; i++ {
		s := m.slot(i)
		used.minus(s.tokens.used)
		if used.room(left) >= 0 {
			return time.Duration(s.last + minuteSpan - clock)
		}
	}
	return 0
}

// nextExpiry is how long until the next slot leaves; 0 when there is none.
func (m *minute) nextExpiry(clock int64) time.Duration {
	if m.n == 0 {
		return 0
	}
	return time.Duration(m.slot(0).last + minuteSpan - clock)
}

// emptyIn is how long until the window is empty.
func (m *minute) emptyIn(clock int64) time.Duration {
	if m.n == 0 {
		return 0
	}
	return time.Duration(m.slot(m.n-1).last + minuteSpan - clock)
}
