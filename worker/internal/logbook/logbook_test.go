package logbook

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/worker/internal/journal"
	"github.com/bulkhead-ai/bulkhead/worker/receipt"
	"github.com/dgraph-io/badger/v4"
)

var dataKey = sha256.Sum256([]byte("data key"))

// within bounds how long a test may hang.
func within(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func testJournal(t testing.TB) *journal.Journal {
	t.Helper()
	j, err := journal.Open(journal.Config{Dir: filepath.Join(t.TempDir(), "journal"), Tenant: "acme", DataKey: dataKey[:], MinFree: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	if _, err := j.Begin(1, nil); err != nil {
		t.Fatal(err)
	}
	return j
}

func testReceipt(seq uint64) receipt.Receipt {
	noise := fmt.Sprintf("%x", sha256.Sum256([]byte{byte(seq), byte(seq >> 8), byte(seq >> 16)}))
	return receipt.Receipt{
		Tenant: "acme", Seq: seq, Epoch: 1, Attempt: 1, Final: true, Outcome: bulkhead.Served, Status: 200,
		Request:   requestID(seq),
		StartedAt: 1_700_000_000_000 + int64(seq)*1000, SettledAt: 1_700_000_000_500 + int64(seq)*1000, Day: "2023-11-14",
		Project: fmt.Sprintf("p%d", seq%3), Env: "prod", Account: "bot", Key: "key-1", KeyOwner: "owner@bank.example",
		Endpoint: "chat/completions", Model: "fast", Provider: "main", UpstreamModel: "tiny",
		Usage: bulkhead.Usage{Input: 100, Output: 20}, Cost: 65_000_000, Currency: "USD", PriceBook: "default@3",
		LatencyMS: 500, Salt: noise[:32], Feature: noise,
	}
}

// requestID gives two neighbouring receipts the same request.
func requestID(seq uint64) bulkhead.RequestID {
	return bulkhead.RequestID(fmt.Sprintf("req_%012x%020x", 1_700_000_000_000+seq/4, seq/2))
}

// fill appends n receipts, each after an intent, and makes them durable.
func fill(t testing.TB, j *journal.Journal, n int) {
	t.Helper()
	for range n {
		if _, err := j.Append(journal.KindIntent, journal.Written, func(dst []byte, _ uint64) []byte { return append(dst, "intent"...) }); err != nil {
			t.Fatal(err)
		}
		_, err := j.Append(journal.KindSettle, journal.Written, func(dst []byte, seq uint64) []byte {
			r := testReceipt(seq)
			return r.AppendJSON(dst)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := j.Sync(within(t)); err != nil {
		t.Fatal(err)
	}
}

func testConfig(t testing.TB, j *journal.Journal) Config {
	return Config{Dir: filepath.Join(t.TempDir(), "logbook"), Tenant: "acme", DataKey: dataKey[:], Source: j, MinFree: -1}
}

func mustOpen(t testing.TB, cfg Config) *Logbook {
	t.Helper()
	l, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// ask returns the sequence numbers of what matches, after checking each row.
func ask(t testing.TB, l *Logbook, f Filter) (seqs []uint64) {
	t.Helper()
	err := l.Query(within(t), f, func(raw []byte) error {
		r, err := receipt.Parse(raw)
		if err != nil {
			return err
		}
		if want := testReceipt(r.Seq); r != want {
			return fmt.Errorf("record %d is %+v", r.Seq, r)
		}
		if len(seqs) > 0 && r.Seq >= seqs[len(seqs)-1] {
			return fmt.Errorf("record %d after %d", r.Seq, seqs[len(seqs)-1])
		}
		seqs = append(seqs, r.Seq)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return seqs
}

func TestQuery(t *testing.T) {
	j := testJournal(t)
	fill(t, j, 300) // records 3, 5, 7, ... 601
	l := mustOpen(t, testConfig(t, j))
	at := func(seq int64) time.Time { return time.UnixMilli(1_700_000_000_000 + seq*1000) }
	for _, tt := range []struct {
		name   string
		filter Filter
		want   int
		first  uint64
	}{
		{"all", Filter{}, 300, 601},
		{"limit", Filter{Limit: 7}, 7, 601},
		{"next page", Filter{Limit: 7, Before: 589}, 7, 587},
		{"after the last page", Filter{Before: 3}, 0, 0},
		{"request", Filter{RequestID: requestID(101)}, 1, 101},
		{"request and other project", Filter{RequestID: requestID(101), Project: "nope"}, 0, 0},
		{"unknown request", Filter{RequestID: requestID(9999)}, 0, 0},
		{"project", Filter{Project: "p0"}, 100, 597},
		{"env", Filter{Env: "test"}, 0, 0},
		{"account", Filter{Account: "bot"}, 300, 601},
		{"key", Filter{Key: "key-2"}, 0, 0},
		{"user", Filter{User: "x"}, 0, 0},
		{"model", Filter{Model: "fast", Limit: 1}, 1, 601},
		{"outcome", Filter{Outcome: bulkhead.Failed}, 0, 0},
		{"from", Filter{From: at(591)}, 6, 601},
		{"to", Filter{To: at(13)}, 5, 11},
		{"between", Filter{From: at(11), To: at(17)}, 3, 15},
	} {
		got := ask(t, l, tt.filter)
		if len(got) != tt.want || tt.want > 0 && got[0] != tt.first {
			t.Errorf("%s: %d receipts %.20v, want %d from %d", tt.name, len(got), got, tt.want, tt.first)
		}
	}
	stop := errors.New("stop")
	if err := l.Query(within(t), Filter{}, func([]byte) error { return stop }); err != stop {
		t.Errorf("error of the callback: %v", err)
	}
	if err := l.Query(within(t), Filter{RequestID: "x"}, func([]byte) error { return nil }); err == nil {
		t.Error("malformed request id accepted")
	}
}

func TestCloseAndContinue(t *testing.T) {
	j := testJournal(t)
	cfg := testConfig(t, j)
	for round := 1; round <= 6; round++ {
		l := mustOpen(t, cfg)
		if round > 1 && l.AppliedSeq() == 0 {
			t.Fatalf("round %d: a cleanly closed logbook was rebuilt", round)
		}
		fill(t, j, 50)
		if got := ask(t, l, Filter{}); len(got) != 50*round {
			t.Fatalf("round %d: %d receipts", round, len(got))
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestUncleanEndRebuilds(t *testing.T) {
	j := testJournal(t)
	cfg := testConfig(t, j)
	fill(t, j, 50)
	l := mustOpen(t, cfg)
	ask(t, l, Filter{})
	if err := l.store.close(); err != nil { // as if the process had died: no seal
		t.Fatal(err)
	}
	l.store = nil
	l = mustOpen(t, cfg)
	if l.AppliedSeq() != 0 {
		t.Fatal("a store that was not closed cleanly was believed")
	}
	if got := ask(t, l, Filter{}); len(got) != 50 {
		t.Fatalf("%d receipts", len(got))
	}
}

func TestOtherKeyRebuilds(t *testing.T) {
	j := testJournal(t)
	cfg := testConfig(t, j)
	fill(t, j, 10)
	l := mustOpen(t, cfg)
	ask(t, l, Filter{})
	l.Close()
	other := sha256.Sum256([]byte("another"))
	cfg.DataKey = other[:]
	l = mustOpen(t, cfg)
	if l.AppliedSeq() != 0 {
		t.Fatal("opened with another key")
	}
}

func TestAheadOfJournalRebuilds(t *testing.T) {
	j := testJournal(t)
	cfg := testConfig(t, j)
	fill(t, j, 10)
	l := mustOpen(t, cfg)
	ask(t, l, Filter{})
	l.Close()
	shorter := testJournal(t)
	fill(t, shorter, 3)
	cfg.Source = shorter
	l = mustOpen(t, cfg)
	if got := ask(t, l, Filter{}); len(got) != 3 {
		t.Fatalf("%d receipts of a journal with 3", len(got))
	}
}

// TestDamage flips a bit in every file of a closed store, and removes and adds
// files: the answer must always be the journal's.
func TestDamage(t *testing.T) {
	j := testJournal(t)
	fill(t, j, 200)
	cfg := testConfig(t, j)
	l := mustOpen(t, cfg)
	ask(t, l, Filter{})
	l.Close()
	entries, err := os.ReadDir(cfg.Dir)
	if err != nil {
		t.Fatal(err)
	}
	damage := map[string]func(path string, b []byte) error{
		"flip":     func(path string, b []byte) error { b[len(b)/2] ^= 4; return os.WriteFile(path, b, 0o600) },
		"truncate": func(path string, b []byte) error { return os.WriteFile(path, b[:len(b)/2], 0o600) },
		"remove":   func(path string, _ []byte) error { return os.Remove(path) },
		"add":      func(path string, b []byte) error { return os.WriteFile(path+".sst", b, 0o600) },
	}
	tried := 0
	for _, e := range entries {
		for name, hurt := range damage {
			path := filepath.Join(cfg.Dir, e.Name())
			raw, err := os.ReadFile(path)
			if err != nil || len(raw) == 0 || e.Name() == "LOCK" {
				continue // gone since the last rebuild, or nothing to hurt
			}
			if err := hurt(path, raw); err != nil {
				t.Fatal(err)
			}
			l := mustOpen(t, cfg)
			if l.AppliedSeq() != 0 {
				t.Errorf("%s %s: was not noticed", name, e.Name())
			}
			if got := ask(t, l, Filter{}); len(got) != 200 {
				t.Errorf("%s %s: %d receipts", name, e.Name(), len(got))
			}
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			tried++
		}
	}
	if tried < 8 {
		t.Fatalf("only %d damages tried", tried)
	}
}

// TestBlockHurtWhileOpen deletes and changes blocks behind the logbook's back.
func TestBlockHurtWhileOpen(t *testing.T) {
	j := testJournal(t)
	fill(t, j, 5*maxBlock)
	l := mustOpen(t, testConfig(t, j))
	ask(t, l, Filter{})
	hurt := map[string]func(txn *badger.Txn, key []byte) error{
		"delete": func(txn *badger.Txn, key []byte) error { return txn.Delete(key) },
		"change": func(txn *badger.Txn, key []byte) error {
			item, err := txn.Get(key)
			if err != nil {
				return err
			}
			value, err := item.ValueCopy(nil)
			value[len(value)/2] ^= 1
			return errors.Join(err, txn.Set(key, value))
		},
		"empty": func(txn *badger.Txn, key []byte) error { return txn.Set(key, nil) },
	}
	for name, do := range hurt {
		for i := range 5 {
			txn := l.store.db.NewTransaction(true)
			it := txn.NewIterator(badger.IteratorOptions{Prefix: []byte{blockPrefix}})
			it.Rewind()
			for range i {
				it.Next()
			}
			key := it.Item().KeyCopy(nil)
			it.Close()
			if err := errors.Join(do(txn, key), txn.Commit()); err != nil {
				t.Fatal(err)
			}
			if got := ask(t, l, Filter{}); len(got) != 5*maxBlock {
				t.Errorf("%s block %d: %d receipts", name, i, len(got))
			}
		}
	}
}

func TestLowSpace(t *testing.T) {
	j := testJournal(t)
	cfg := testConfig(t, j)
	cfg.MinFree = 1 << 60
	if _, err := Open(cfg); !errors.Is(err, ErrLowSpace) {
		t.Fatalf("open without space: %v", err)
	}
}

func TestFileModes(t *testing.T) {
	j := testJournal(t)
	fill(t, j, 10)
	cfg := testConfig(t, j)
	l := mustOpen(t, cfg)
	ask(t, l, Filter{})
	for _, when := range []string{"open", "closed"} {
		entries, _ := os.ReadDir(cfg.Dir)
		for _, e := range entries {
			if st, err := e.Info(); err == nil && st.Mode().Perm()&0o077 != 0 {
				t.Errorf("%s: %s has mode %v", when, e.Name(), st.Mode())
			}
		}
		l.Close()
	}
}

func TestRunFollows(t *testing.T) {
	j := testJournal(t)
	cfg := testConfig(t, j)
	cfg.Delay = time.Millisecond
	l := mustOpen(t, cfg)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- l.Run(ctx) }()
	for range 5 {
		fill(t, j, 20)
		head, _ := j.Head()
		deadline := within(t)
		for l.AppliedSeq() < head {
			l.Notify()
			if deadline.Err() != nil {
				t.Fatalf("at %d of %d", l.AppliedSeq(), head)
			}
		}
	}
	stop()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
}

func TestPrune(t *testing.T) {
	j := testJournal(t)
	const n = 5000
	fill(t, j, n)
	l := mustOpen(t, testConfig(t, j))
	if got := ask(t, l, Filter{}); len(got) != n {
		t.Fatalf("%d receipts", len(got))
	}
	if err := l.store.prune(2_001); err != nil {
		t.Fatal(err)
	}
	got := ask(t, l, Filter{})
	if oldest := got[len(got)-1]; oldest > 2_001 || oldest < 2_001-2*maxBlock {
		t.Fatalf("after pruning: %d receipts from record %d on", len(got), oldest)
	}
	if got := ask(t, l, Filter{RequestID: requestID(101)}); len(got) != 0 {
		t.Fatal("a pruned receipt was found by its request")
	}
}

// TestFlattenWhileWriting fills many memtables in one go: without compactors
// Badger would block for ever once level 0 is full.
func TestFlattenWhileWriting(t *testing.T) {
	j := testJournal(t)
	l := mustOpen(t, testConfig(t, j))
	noise := rand.NewChaCha8([32]byte{1})
	w := l.store.begin()
	const n = 12_000
	for seq := uint64(1); seq <= n; seq++ {
		raw := fmt.Appendf(nil, `{"request_id":"%s"`, requestID(seq))
		raw = append(raw, make([]byte, 3000)...)
		noise.Read(raw[len(raw)-3000:])
		if err := w.put(seq, raw); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.commit(n); err != nil {
		t.Fatal(err)
	}
	levels := l.store.db.Levels()
	if levels[0].NumTables > 2*maxLevel0 || len(l.store.db.Tables()) < 3 {
		t.Fatalf("levels: %+v", levels)
	}
}

// TestFlattenAfterShortLives: every clean end adds a table to level 0.
func TestFlattenAfterShortLives(t *testing.T) {
	j := testJournal(t)
	cfg := testConfig(t, j)
	for range 3 * maxLevel0 {
		l := mustOpen(t, cfg)
		fill(t, j, 5)
		ask(t, l, Filter{})
		if n := l.store.db.Levels()[0].NumTables; n > maxLevel0 {
			t.Fatalf("%d tables in level 0", n)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
