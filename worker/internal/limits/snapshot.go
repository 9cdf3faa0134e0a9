package limits

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/bulkhead-ai/bulkhead"
)

// The snapshot, all integers varints:
//
//	version 2 | clock | last | seen | day | month | nextID
//	| levels:  count, then each: level byte | project | name | due | base | day window | month window | slots
//	| open:    count, then each: id | project | env | account | again | tokens | cost | 4 shares
//	           | shares of policies: count, then each: project | name | share
//	window:    key | requests | used tokens (hi, lo) | used cost (hi, lo)
//	slots:     count, then each: at | last | requests | used tokens (hi, lo)
//	share:     day key | month key | slot | extra slot | extra | pace base
//
// What reservations hold is not written: it follows from the open ones. The
// bytes carry no checksum; the journal seals them.
const snapshotVersion = 2

// Snapshot encodes all counters and open reservations.
//
// For a checkpoint, read the journal's head position first, then take the
// snapshot, and replay from that position on: Reserve comes before the intent
// record and Settle before the settle record, so the snapshot knows everything
// up to that position, and what it knows beyond is skipped by id.
func (l *Limiter) Snapshot() []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := []byte{snapshotVersion}
	for _, v := range [...]int64{l.clock, unixNano(l.last), l.cal.seen, l.cal.day, l.cal.month} {
		b = binary.AppendVarint(b, v)
	}
	b = binary.AppendUvarint(b, l.nextID)

	levels := slices.SortedFunc(maps.Values(l.levels), func(a, b *level) int {
		return cmp.Or(cmp.Compare(a.scope.Level, b.scope.Level), cmp.Compare(a.scope.Project, b.scope.Project), cmp.Compare(a.scope.Name, b.scope.Name))
	})
	levels = slices.DeleteFunc(levels, func(lv *level) bool { return lv.day == nil })
	b = binary.AppendUvarint(b, uint64(len(levels)))
	for _, lv := range levels {
		lv.minute.expire(l.clock)
		b = appendLevel(b, lv)
	}
	ids := slices.Sorted(maps.Keys(l.open))
	b = binary.AppendUvarint(b, uint64(len(ids)))
	for _, id := range ids {
		b = l.appendReservation(b, l.open[id])
	}
	return b
}

func unixNano(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendSum(b []byte, s sum) []byte {
	return binary.AppendUvarint(binary.AppendUvarint(b, s.hi), s.lo)
}

func appendLevel(b []byte, lv *level) []byte {
	b = append(b, byte(lv.scope.Level))
	b = appendString(b, lv.scope.Project)
	b = appendString(b, lv.scope.Name)
	b = binary.AppendVarint(b, lv.pace.due)
	b = binary.AppendVarint(b, lv.pace.base)
	for _, w := range [...]*window{lv.day, lv.month} {
		b = binary.AppendVarint(b, w.key)
		b = binary.AppendVarint(b, w.requests)
		b = appendSum(b, w.tokens.used)
		b = appendSum(b, w.cost.used)
	}
	b = binary.AppendUvarint(b, uint64(lv.minute.n))
	for i := range lv.minute.n {
		s := lv.minute.slot(i)
		b = binary.AppendVarint(b, s.at)
		b = binary.AppendVarint(b, s.last)
		b = binary.AppendVarint(b, s.requests)
		b = appendSum(b, s.tokens.used)
	}
	return b
}

func (l *Limiter) appendReservation(b []byte, r *Reservation) []byte {
	b = binary.AppendUvarint(b, r.ID)
	b = appendString(b, r.ask.Project)
	b = appendString(b, r.ask.Env)
	b = appendString(b, r.ask.Account)
	b = binary.AppendVarint(b, 1-r.requests())
	b = binary.AppendVarint(b, r.tokens)
	b = binary.AppendVarint(b, int64(r.cost))
	base := len(r.few)
	for i := range r.shares[:base] {
		b = appendShare(b, &r.shares[i])
	}
	var rules []*share
	for i := base; i < len(r.shares); i++ {
		if s := &r.shares[i]; l.levels[s.level.scope] == s.level { // else the policy is gone
			rules = append(rules, s)
		}
	}
	b = binary.AppendUvarint(b, uint64(len(rules)))
	for _, s := range rules {
		b = appendString(b, s.level.scope.Project)
		b = appendString(b, s.level.scope.Name)
		b = appendShare(b, s)
	}
	return b
}

func appendShare(b []byte, s *share) []byte {
	for _, v := range [...]int64{s.day.key, s.month.key, s.slot, s.extraSlot, s.extra, s.paceBase} {
		b = binary.AppendVarint(b, v)
	}
	return b
}

// Restore puts a snapshot into a limiter that New has just made; the limits
// stay those of the policy. On an error the limiter must not be used.
func (l *Limiter) Restore(snapshot []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	d := decoder{b: snapshot}
	if v := d.byte(); v != snapshotVersion {
		return fmt.Errorf("restore limits: snapshot version %d: want %d", v, snapshotVersion)
	}
	l.clock = d.count()
	if last := d.varint(); last != 0 {
		l.last = time.Unix(0, last)
	}
	l.cal.seen, l.cal.day, l.cal.month = d.varint(), d.varint(), d.varint()
	l.cal.started = l.cal.seen != 0
	l.cal.dayEnd = 0 // look the day up again, in the policy's time zone
	l.nextID = d.uvarint()
	l.known = l.nextID
	rules := l.takeRules()
	for n := d.uvarint(); n > 0 && d.err == nil; n-- {
		d.level(l)
	}
	l.keepRules(rules)
	for n := d.uvarint(); n > 0 && d.err == nil; n-- {
		d.reservation(l)
	}
	if d.err == nil {
		l.setRules(rules) // those that the snapshot does not know begin with what it does
	}
	if d.err == nil && len(d.b) > 0 {
		d.err = errSnapshot
	}
	if d.err != nil {
		return fmt.Errorf("restore limits: %w", d.err)
	}
	return nil
}

var errSnapshot = errors.New("malformed snapshot")

// decoder reads a snapshot; after an error every read answers zero.
type decoder struct {
	b   []byte
	err error
}

func (d *decoder) fail() {
	d.err = errSnapshot
	d.b = nil
}

func (d *decoder) byte() byte {
	if len(d.b) == 0 {
		d.fail()
		return 0
	}
	c := d.b[0]
	d.b = d.b[1:]
	return c
}

func (d *decoder) varint() int64 {
	v, n := binary.Varint(d.b)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.b = d.b[n:]
	return v
}

// count reads a varint that cannot be negative.
func (d *decoder) count() int64 {
	v := d.varint()
	if v < 0 {
		d.fail()
		return 0
	}
	return v
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) string() string {
	n := d.uvarint()
	if n > uint64(len(d.b)) {
		d.fail()
		return ""
	}
	s := string(d.b[:n])
	d.b = d.b[n:]
	return s
}

func (d *decoder) sum() sum { return sum{d.uvarint(), d.uvarint()} }

func (d *decoder) level(l *Limiter) {
	scope := Scope{Level(d.byte()), d.string(), d.string()}
	if scope.Level > Policy {
		d.fail()
		return
	}
	lv := l.level(scope)
	lv.pace = pace{due: d.varint(), base: d.varint()}
	lv.day, lv.month = d.window(), d.window()
	var before int64 = -1
	for n := d.uvarint(); n > 0 && d.err == nil; n-- {
		at, last, requests, used := d.count(), d.count(), d.count(), d.sum()
		if at <= before || last/slotSpan != at || last > l.clock {
			d.fail()
			return
		}
		before = at
		s := lv.minute.now(last)
		s.requests, s.tokens.used = requests, used
		lv.minute.requests += requests
		lv.minute.tokens.used = lv.minute.tokens.used.plus(used)
	}
}

func (d *decoder) window() *window {
	w := &window{key: d.varint(), requests: d.count()}
	w.tokens.used, w.cost.used = d.sum(), d.sum()
	return w
}

func (d *decoder) reservation(l *Limiter) {
	r := &Reservation{ID: d.uvarint()}
	r.ask = Ask{Project: d.string(), Env: d.string(), Account: d.string(), Again: d.varint() != 0}
	r.tokens, r.cost = d.count(), bulkhead.Money(d.count())
	r.shares = r.few[:0]
	for _, scope := range Scopes(r.ask.Project, r.ask.Env, r.ask.Account) {
		d.share(r, l.level(scope))
	}
	for n := d.uvarint(); n > 0 && d.err == nil; n-- {
		scope := Scope{Policy, d.string(), d.string()}
		d.share(r, l.levels[scope])
	}
	if d.err != nil {
		return
	}
	if _, twice := l.open[r.ID]; twice || r.ID >= l.nextID {
		d.fail()
		return
	}
	l.open[r.ID] = r
}

// share reads what a reservation holds at a level; nil where the level is gone.
func (d *decoder) share(r *Reservation, lv *level) {
	day, month := d.varint(), d.varint()
	s := share{slot: d.varint(), extraSlot: d.varint(), extra: d.count(), paceBase: d.varint()}
	if d.err != nil || s.extra > r.tokens {
		d.fail()
		return
	}
	if lv != nil {
		s.restore(r, lv, day, month)
		r.shares = append(r.shares, s)
	}
}

// restore puts a share to its level, into the windows in which it was made.
func (s *share) restore(r *Reservation, lv *level, day, month int64) {
	s.level, s.day, s.month = lv, lv.day, lv.month
	if s.day == nil || s.day.key != day {
		s.day = &window{key: day, requests: r.requests()}
	}
	if s.month == nil || s.month.key != month {
		s.month = &window{key: month, requests: r.requests()}
	}
	s.holdAgain(r)
}

// holdAgain counts what a restored reservation holds, where it held it. Its
// request is in the counters already.
func (s *share) holdAgain(r *Reservation) {
	lv := s.level
	lv.inFlight += r.requests()
	for _, w := range [...]*window{s.day, s.month} {
		w.reserve(0, r.tokens, int64(r.cost))
	}
	hold := func(at, tokens int64) {
		if slot := lv.minute.find(at); slot != nil {
			slot.tokens.held.add(tokens)
			lv.minute.tokens.held.add(tokens)
		}
	}
	hold(s.slot, r.tokens-s.extra)
	if s.extra > 0 {
		hold(s.extraSlot, s.extra)
	}
}
