package limits_test

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/configs/manifest"
	"github.com/bulkhead-ai/bulkhead/worker/internal/limits"
)

// journalRecord is what a journal would hold: an intent, or the end of one.
type journalRecord struct {
	intent *limits.Intent
	id     uint64
	tokens int64
	cost   bulkhead.Money
	keep   bool
}

func replay(t *rapid.T, l *limits.Limiter, records []journalRecord) {
	for _, r := range records {
		switch {
		case r.intent != nil:
			l.Reapply(*r.intent)
		case r.keep:
			l.KeepID(r.id)
		default:
			l.SettleID(r.id, r.tokens, r.cost)
		}
	}
}

// TestReplay writes a journal while requests run, with intents in another order
// than their reservations, takes a checkpoint at some moment, and compares the
// state rebuilt from checkpoint and tail, and the one rebuilt from the whole
// journal, with the live one.
func TestReplay(t *testing.T) {
	policy := policyOf("Europe/Berlin", &manifest.Limits{Daily: &manifest.Window{Tokens: new(int64(5000))}})
	rapid.Check(t, func(t *rapid.T) {
		live, err := limits.New(policy)
		if err != nil {
			t.Fatal(err)
		}
		now := time.Date(2026, 3, 28, 22, 0, 0, 0, time.UTC)
		var journal []journalRecord
		var reserved, sent []*limits.Reservation // reserved: without an intent yet
		var snapshot []byte
		head, headRead := 0, false
		take := func(from *[]*limits.Reservation) *limits.Reservation {
			i := rapid.IntRange(0, len(*from)-1).Draw(t, "which")
			r := (*from)[i]
			*from = slices.Delete(*from, i, i+1)
			return r
		}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			switch rapid.IntRange(0, 5).Draw(t, "step") {
			case 0, 1:
				if v := live.Reserve(ask(now, rapid.Int64Range(0, 50).Draw(t, "in"), 20)); v.Reservation != nil {
					reserved = append(reserved, v.Reservation)
				}
			case 2:
				if len(reserved) > 0 {
					r := take(&reserved)
					tokens, cost := live.Held(r)
					journal = append(journal, journalRecord{intent: &limits.Intent{
						ID: r.ID, Project: "p", Env: "prod", Account: "a", Tokens: tokens, Cost: cost, At: now,
					}})
					sent = append(sent, r)
				}
			case 3:
				if len(sent) > 0 {
					r := take(&sent)
					tokens, cost := live.Held(r)
					rec := journalRecord{id: r.ID, tokens: tokens, cost: cost, keep: rapid.Bool().Draw(t, "unknown")}
					if !rec.keep {
						rec.tokens, rec.cost = tokens/2, cost/3
					}
					live.Settle(r, rec.tokens, rec.cost)
					if headRead && snapshot == nil && rapid.Bool().Draw(t, "checkpoint between settle and its record") {
						snapshot = live.Snapshot()
					}
					journal = append(journal, rec)
				}
			case 4:
				// Head first, snapshot later: much may happen in between.
				if !headRead {
					head, headRead = len(journal), true
				} else if snapshot == nil {
					snapshot = live.Snapshot()
				}
			case 5:
				if len(reserved) > 0 {
					break // an intent follows its reservation at once
				}
				now = now.Add(time.Duration(rapid.Int64Range(0, int64(3*time.Hour)).Draw(t, "pass")))
			}
		}
		for _, r := range reserved { // never sent
			live.Cancel(r)
		}
		var open []uint64
		for _, r := range sent {
			open = append(open, r.ID)
		}
		slices.Sort(open)

		for name, from := range map[string]struct {
			snapshot []byte
			tail     []journalRecord
		}{"checkpoint and tail": {snapshot, journal[head:]}, "whole journal": {nil, journal}} {
			if from.snapshot == nil {
				from.tail = journal
			}
			l, err := limits.New(policy)
			if err != nil {
				t.Fatal(err)
			}
			if from.snapshot != nil {
				if err := l.Restore(from.snapshot); err != nil {
					t.Fatal(err)
				}
			}
			replay(t, l, from.tail)
			for _, id := range l.Open() {
				if !slices.Contains(open, id) {
					l.CancelID(id)
				}
			}
			if got := l.Open(); !slices.Equal(got, open) {
				t.Fatalf("%s: open %v, live %v", name, got, open)
			}
			if got, want := left(l, now), left(live, now); got != want {
				t.Fatalf("%s: %d tokens are left today, live %d", name, got, want)
			}
			for _, id := range open {
				l.KeepID(id)
			}
		}
	})
}

// left is how many tokens of the day pass at once.
func left(l *limits.Limiter, now time.Time) int64 {
	a := ask(now, 0, 1<<40)
	a.Clampable = true
	v := l.Reserve(a)
	if v.Reservation == nil {
		return 0
	}
	l.Cancel(v.Reservation)
	return v.Reservation.Output
}

func TestReapplyRaises(t *testing.T) {
	l := newLimiter(t, &manifest.Limits{Daily: &manifest.Window{Tokens: new(int64(100))}})
	in := limits.Intent{ID: 7, Project: "p", Env: "prod", Account: "a", Tokens: 60, Cost: 60, At: t0}
	l.Reapply(in)
	l.Reapply(in)
	in.Tokens = 90 // an extension
	l.Reapply(in)
	if got := l.Open(); !slices.Equal(got, []uint64{7}) {
		t.Fatalf("open: %v", got)
	}
	if l.Reserve(ask(t0, 0, 11)).Reservation != nil || l.Reserve(ask(t0, 0, 10)).Reservation == nil {
		t.Error("the reservation does not hold 90")
	}
	l.KeepID(7)
	if v := l.Reserve(ask(t0, 0, 11)); v.Refusal == nil {
		t.Errorf("an unknown outcome does not count as used: %+v", v)
	}
	if l.SettleID(7, 0, 0) || l.KeepID(7) || l.CancelID(7) {
		t.Error("a settled reservation was found again")
	}
}

// After a restart the wall clock takes over where the journal ended, even when
// it is behind it.
func TestRestoreBehindTheJournal(t *testing.T) {
	lim := &manifest.Limits{RequestsPerMinute: new(int64(1))}
	old := newLimiter(t, lim)
	ahead := time.Now().Add(time.Hour).Round(0)
	if e := pass(t, old, ask(ahead, 1, 1)); e != nil {
		t.Fatal(e)
	}
	l := newLimiter(t, lim)
	if err := l.Restore(old.Snapshot()); err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	e := pass(t, l, ask(now, 1, 1))
	wantCode(t, e, bulkhead.RateLimited, "requests_per_minute_exceeded")
	if e := pass(t, l, ask(now.Add(e.RetryAfter), 1, 1)); e != nil {
		t.Errorf("refused an hour for a clock that was set back: %v", e)
	}
}

func FuzzRestore(f *testing.F) {
	l := newLimiter(f, nil)
	f.Add(l.Snapshot())
	l.Reserve(ask(t0, 10, 10))
	r := l.Reserve(ask(t0.Add(time.Second), 10, 10)).Reservation
	l.Extend(r, 5, t0.Add(3*time.Second))
	pass(f, l, ask(t0.Add(5*time.Second), 10, 10))
	f.Add(l.Snapshot())
	f.Add([]byte{1})
	f.Fuzz(func(t *testing.T, b []byte) {
		l := newLimiter(t, nil)
		if err := l.Restore(b); err != nil {
			return
		}
		l.Snapshot()
	})
}

func BenchmarkReserveSettle(b *testing.B) {
	big := func() *manifest.Limits {
		n := func() *int64 { return new(int64(1 << 50)) }
		w := func() *manifest.Window {
			return &manifest.Window{Requests: n(), Tokens: n(), Cost: new(bulkhead.Money(1 << 60))}
		}
		return &manifest.Limits{RequestsPerMinute: n(), TokensPerMinute: n(), Burst: n(), Concurrency: n(), Daily: w(), Monthly: w()}
	}
	p := policyOf("Europe/Berlin", big())
	p.Projects = map[string]manifest.Project{"p": {Limits: big(), Environments: map[string]manifest.Environment{"prod": {Limits: big()}}}}
	p.Accounts = append(p.Accounts, accountOf(big()))
	l, err := limits.New(p)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		v := l.Reserve(ask(time.Now(), 100, 100))
		l.Settle(v.Reservation, 150, 200)
	}
}

func BenchmarkRefuse(b *testing.B) {
	l := newLimiter(b, &manifest.Limits{Daily: &manifest.Window{Requests: new(int64(0))}})
	b.ReportAllocs()
	for b.Loop() {
		l.Reserve(ask(time.Now(), 100, 100))
	}
}
