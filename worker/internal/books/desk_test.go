package books

import (
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/configs/manifest"
	"github.com/bulkhead-ai/bulkhead/worker/internal/books/bookstest"
	"github.com/bulkhead-ai/bulkhead/worker/internal/journal"
	"github.com/bulkhead-ai/bulkhead/worker/internal/limits"
	"github.com/bulkhead-ai/bulkhead/worker/internal/queue"
	"github.com/bulkhead-ai/bulkhead/worker/receipt"

	"go.uber.org/zap"
)

// generous limits are in force but never in the way.
func generous() *manifest.Limits {
	many := int64(1) << 40
	return &manifest.Limits{Daily: &manifest.Window{Tokens: &many}}
}

func configIn(dir string) Config {
	key := make([]byte, 32)
	key[0] = 1
	return Config{
		Tenant: bookstest.Tenant, Dir: filepath.Join(dir, "journal"), LogbookDir: filepath.Join(dir, "logbook"),
		DataKey: key, SegmentBytes: 1 << 20, MinFree: -1, Policy: bookstest.Policy(generous()), Log: zap.NewNop(),
	}
}

// desk is a tenant's books with the ledger they are booked in.
type desk struct {
	*Books
	t      testing.TB
	ledger *bookstest.Ledger
	key    ed25519.PrivateKey
}

// openWith opens books, begins an epoch of the ledger, and closes them at the
// test's end.
func openWith(t testing.TB, cfg Config, l *bookstest.Ledger) *desk {
	t.Helper()
	b, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	serve, key := l.Begin()
	if err := b.Begin(Epoch{Number: serve.Epoch, AppliedSeq: serve.AppliedSeq, Frontier: serve.Frontier}); err != nil {
		t.Fatal(err)
	}
	return &desk{Books: b, t: t, ledger: l, key: key}
}

func open(t testing.TB, dir string, l *bookstest.Ledger) *desk {
	t.Helper()
	return openWith(t, configIn(dir), l)
}

// bookAll sends everything that waits.
func (d *desk) bookAll() {
	d.t.Helper()
	for {
		raw, err := d.NextBatch(d.key, false)
		if err != nil {
			d.t.Fatal(err)
		}
		if raw == nil {
			return
		}
		if err := d.Booked(d.ledger.Book(raw)); err != nil {
			d.t.Fatal(err)
		}
	}
}

func lineOf(id bulkhead.RequestID) Line {
	now := time.Now()
	p := bookstest.Policy(nil)
	return Line{
		Receipt: receipt.Receipt{
			Tenant: bookstest.Tenant, Request: id, StartedAt: now.UnixMilli(), Day: now.UTC().Format(time.DateOnly),
			Project: "app", Env: "prod", Account: "bot", Key: "key_bot", KeyOwner: "dev@acme.example",
			Endpoint: "chat/completions", Model: "fast", Provider: "main", UpstreamModel: "tiny",
		},
		Price: &p.Prices.Entries[0], Currency: "USD", PriceBook: "default@1", Started: now,
	}
}

// ask is for 10 tokens in and 20 out, at most 10*2 + 20*4 pico-units.
func planOf(id bulkhead.RequestID) Plan {
	return Plan{Line: lineOf(id), Ask: limits.Ask{
		Project: "app", Env: "prod", Account: "bot", Now: time.Now(),
		InputTokens: 10, OutputTokens: 20, Outputs: 1, PriceIn: 2, PriceOut: 4, Priced: true,
	}}
}

func newID() bulkhead.RequestID { return bulkhead.NewRequestID(time.Now()) }

func within(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func (d *desk) admit(id bulkhead.RequestID) *Entry {
	d.t.Helper()
	e, err := d.Admit(within(d.t), queue.Ticket{Key: "key_bot", Scopes: d.Scopes("app", "prod", "bot")}, func() Plan { return planOf(id) })
	if err != nil {
		d.t.Fatal(err)
	}
	return e
}

// copyDir makes an image of what a killed process leaves: all files as the
// kernel has them. Nothing may be written to the journal meanwhile.
func copyDir(t testing.TB, from string) string {
	t.Helper()
	to := t.TempDir()
	for _, name := range []string{"journal", "journal-checkpoint"} { // the logbook is a view, made again
		if err := os.CopyFS(filepath.Join(to, name), os.DirFS(filepath.Join(from, name))); err != nil {
			t.Fatal(err)
		}
	}
	return to
}

// counters reads what counts out of a snapshot: use per scope and window, and
// what is open. Times are left out: they differ between a life and its replay.
func counters(b []byte) string {
	next := func() uint64 {
		v, n := binary.Uvarint(b)
		b = b[n:]
		return v
	}
	signed := func() int64 {
		v, n := binary.Varint(b)
		b = b[n:]
		return v
	}
	text := func() string {
		n := next()
		s := string(b[:n])
		b = b[n:]
		return s
	}
	var out strings.Builder
	b = b[1:]
	for range 5 {
		signed()
	}
	next() // the next id: reservations that never came to an intent leave gaps
	for n := next(); n > 0; n-- {
		level := b[0]
		b = b[1:]
		fmt.Fprintf(&out, "level %d %s/%s", level, text(), text())
		signed()
		signed()
		for _, name := range []string{"day", "month"} {
			fmt.Fprintf(&out, " %s", name)
			signed()
			fmt.Fprintf(&out, " requests %d", signed())
			next()
			fmt.Fprintf(&out, " tokens %d", next())
			next()
			fmt.Fprintf(&out, " cost %d", next())
		}
		var requests int64
		var tokens uint64
		for n := next(); n > 0; n-- {
			signed()
			signed()
			requests += signed()
			next()
			tokens += next()
		}
		fmt.Fprintf(&out, " minute %d %d\n", requests, tokens)
	}
	fmt.Fprintf(&out, "open %d\n", next())
	return out.String()
}

// told is what the journal tells of one request.
type told struct {
	tokens, cost    int64 // that the limits must have counted
	admitted        bool
	finals, unknown int
	last            receipt.Receipt
}

// read folds the journal independently of recovery: use is what receipts say,
// and for unknown outcomes all that the newest intent held.
func read(t testing.TB, j *journal.Journal) map[string]*told {
	t.Helper()
	out := map[string]*told{}
	held := map[string]intent{}
	of := func(r receipt.Receipt) *told {
		id := string(r.Request)
		if out[id] == nil {
			out[id] = &told{}
		}
		return out[id]
	}
	err := j.Replay(1, func(r journal.Record) error {
		switch {
		case r.Kind == journal.KindIntent || r.Kind == journal.KindExtend:
			in, worst, err := parseIntent(r.Data)
			if err != nil {
				return err
			}
			of(worst).admitted = true
			held[string(worst.Request)] = in
		case r.Kind.IsReceipt():
			rec, err := receipt.Parse(r.Data)
			if err != nil {
				return err
			}
			if err := rec.Validate(); err != nil {
				return err
			}
			q := of(rec)
			q.last = rec
			if rec.Final {
				q.finals++
			}
			if rec.Unknown {
				q.unknown++
				in := held[string(rec.Request)]
				if rec.UpperBound != in.cost {
					t.Errorf("request %s: upper bound %d, the intent held %d", rec.Request, rec.UpperBound, in.cost)
				}
				q.tokens += in.tokens
				q.cost += int64(in.cost)
			}
			q.tokens += rec.Usage.Total()
			q.cost += int64(rec.Cost)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// audit holds counters, journal and rules against each other.
func (d *desk) audit() map[string]*told {
	d.t.Helper()
	if err := d.journal.Sync(within(d.t)); err != nil {
		d.t.Fatal(err)
	}
	all := read(d.t, d.journal)
	var requests, tokens, cost int64
	for id, q := range all {
		if q.finals != 1 {
			d.t.Errorf("request %s has %d final receipts, want 1", id, q.finals)
		}
		if q.admitted {
			requests++
		}
		tokens += q.tokens
		cost += q.cost
	}
	got := counters(d.limits.Snapshot())
	if requests > 0 {
		want := fmt.Sprintf("level 0 / day requests %d tokens %d cost %d month requests %d tokens %d cost %d ", requests, tokens, cost, requests, tokens, cost)
		if !strings.HasPrefix(got, want) {
			d.t.Errorf("counters are\n%swant %s", got, want)
		}
	}
	if !strings.HasSuffix(got, "open 0\n") {
		d.t.Errorf("reservations are open:\n%s", got)
	}
	return all
}

// recovered opens a crash image three times, with its checkpoint, without, and
// once more after recovery, and holds each against the journal. It returns what
// the journal tells.
func recovered(t testing.TB, image string, l *bookstest.Ledger) map[string]*told {
	t.Helper()
	scratch := copyDir(t, image)
	if err := os.RemoveAll(filepath.Join(scratch, "journal-checkpoint")); err != nil {
		t.Fatal(err)
	}
	var all []map[string]*told
	var sums []string
	for _, dir := range []string{scratch, image, image} {
		d := open(t, dir, l)
		all = append(all, d.audit())
		sums = append(sums, counters(d.limits.Snapshot()))
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}
	if sums[0] != sums[1] || sums[1] != sums[2] {
		t.Errorf("counters from scratch, from the checkpoint, and once more:\n%s\n%s\n%s", sums[0], sums[1], sums[2])
	}
	for id, q := range all[1] {
		if again := all[2][id]; again == nil || again.finals != q.finals || again.unknown != q.unknown {
			t.Errorf("request %s: %+v, after another start %+v", id, q, again)
		}
	}
	return all[1]
}

func outcomes(all map[string]*told) []string {
	var out []string
	for _, q := range all {
		out = append(out, fmt.Sprintf("%s/%s/%v", q.last.Outcome, q.last.Code, q.last.Unknown))
	}
	slices.Sort(out)
	return out
}
