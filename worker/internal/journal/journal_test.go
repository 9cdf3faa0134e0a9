package journal

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bulkhead-ai/bulkhead"

	"github.com/bulkhead-ai/bulkhead/worker/sealed"
)

// within bounds how long a test may hang.
func within(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func testConfig(t testing.TB) Config {
	key := sha256.Sum256([]byte("data key"))
	return Config{Dir: filepath.Join(t.TempDir(), "journal"), Tenant: "acme", DataKey: key[:], MinFree: -1}
}

func mustOpen(t testing.TB, cfg Config) *Journal {
	t.Helper()
	j, err := Open(cfg)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	t.Cleanup(func() { j.Close() })
	return j
}

func mustBegin(t testing.TB, j *Journal) {
	t.Helper()
	p, err := j.Begin(j.Epoch()+1, []byte("node"))
	if err == nil {
		err = p.Wait(within(t))
	}
	if err != nil {
		t.Fatalf("begin: %v", err)
	}
}

// content makes the data of record seq: different lengths, none compressible to
// another's.
func content(seq uint64) string {
	return fmt.Sprintf("record %d %s", seq, strings.Repeat("x", int(seq*37%900)))
}

func add(t testing.TB, j *Journal, kind Kind, level Durability) uint64 {
	t.Helper()
	p, err := j.Append(kind, level, func(dst []byte, seq uint64) []byte { return append(dst, content(seq)...) })
	if err == nil {
		err = p.Wait(within(t))
	}
	if err != nil {
		t.Fatalf("append: %v", err)
	}
	return p.Seq
}

// readAll replays everything and checks numbers and data.
func readAll(t testing.TB, j *Journal, from uint64) (seqs []uint64) {
	t.Helper()
	err := j.Replay(from, func(r Record) error {
		if len(seqs) > 0 && r.Seq != seqs[len(seqs)-1]+1 {
			return fmt.Errorf("record %d after %d", r.Seq, seqs[len(seqs)-1])
		}
		if r.Kind == KindSettle || r.Kind == KindIntent {
			if string(r.Data) != content(r.Seq) {
				return fmt.Errorf("record %d holds %.30q", r.Seq, r.Data)
			}
		}
		seqs = append(seqs, r.Seq)
		return nil
	})
	if err != nil {
		t.Fatalf("replay: %v", err)
	}
	return seqs
}

func TestReopenKeepsEverything(t *testing.T) {
	cfg := testConfig(t)
	cfg.SegmentBytes = 512 << 10
	var last uint64
	var hash [32]byte
	for round := range 4 {
		cfg.AnchorSeq, cfg.AnchorHash = last, hash
		j := mustOpen(t, cfg)
		seq, h := j.Head()
		if seq != last || h != hash {
			t.Fatalf("round %d: head %d %x, want %d %x", round, seq, h, last, hash)
		}
		mustBegin(t, j)
		for i := range 700 {
			add(t, j, KindSettle, Durability(i%2))
		}
		checkpoint := add(t, j, KindCheckpoint, Synced)
		if got := j.LastCheckpoint(); got != checkpoint {
			t.Fatalf("checkpoint %d, want %d", got, checkpoint)
		}
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
		if err := j.Close(); err != nil {
			t.Fatalf("second close: %v", err)
		}
		last, hash = j.Head()
		j = mustOpen(t, cfg)
		if got := readAll(t, j, 0); uint64(len(got)) != last {
			t.Fatalf("round %d: %d records, want %d", round, len(got), last)
		}
		if got := readAll(t, j, last-10); len(got) != 11 {
			t.Fatalf("replay from the middle: %d records", len(got))
		}
		if got := j.LastCheckpoint(); got != checkpoint {
			t.Fatalf("after reopening: checkpoint %d, want %d", got, checkpoint)
		}
		if got := j.Epoch(); got != bulkhead.Epoch(round+1) {
			t.Fatalf("epoch %d", got)
		}
		j.Close()
	}
	if names, _ := filepath.Glob(filepath.Join(cfg.Dir, "*.seg")); len(names) < 4 {
		t.Fatalf("only %d segments: the test did not cross any border", len(names))
	}
}

func TestConcurrentAppendAndReplay(t *testing.T) {
	cfg := testConfig(t)
	cfg.SegmentBytes = 512 << 10
	j := mustOpen(t, cfg)
	mustBegin(t, j)
	var writers sync.WaitGroup
	for w := range 16 {
		writers.Go(func() {
			for i := range 100 {
				add(t, j, KindIntent, Durability((w+i)%2))
				add(t, j, KindSettle, Synced)
			}
		})
	}
	done := make(chan struct{})
	go func() { writers.Wait(); close(done) }()
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		readAll(t, j, 0)
	}
	if err := j.Sync(within(t)); err != nil {
		t.Fatal(err)
	}
	if got := readAll(t, j, 0); len(got) != 1+16*200 {
		t.Fatalf("%d records", len(got))
	}
	if j.open != 0 {
		t.Fatalf("%d open intents", j.open)
	}
}

func TestEpochs(t *testing.T) {
	j := mustOpen(t, testConfig(t))
	none := func(dst []byte, _ uint64) []byte { return dst }
	if _, err := j.Append(KindIntent, Synced, none); !errors.Is(err, ErrEpoch) {
		t.Fatalf("append before an epoch: %v", err)
	}
	if _, err := j.Begin(0, nil); !errors.Is(err, ErrEpoch) {
		t.Fatalf("epoch 0: %v", err)
	}
	if _, err := j.Begin(7, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := j.Begin(7, nil); !errors.Is(err, ErrEpoch) {
		t.Fatalf("the same epoch again: %v", err)
	}
	if _, err := j.Append(KindRetention, Synced, none); err == nil {
		t.Fatal("a caller may write retention records")
	}
}

func TestAppendRefusesWhatDoesNotFit(t *testing.T) {
	j := mustOpen(t, testConfig(t))
	mustBegin(t, j)
	for _, tt := range []struct {
		kind Kind
		size int
		err  error
	}{
		{KindIntent, MaxEntryData, nil}, {KindIntent, MaxEntryData + 1, ErrTooLarge},
		{KindSettle, MaxEntryData, nil}, {KindSettle, MaxEntryData + 1, ErrTooLarge},
		{KindCheckpoint, MaxData, nil}, {KindCheckpoint, MaxData + 1, ErrTooLarge},
		{KindCheckpoint, MaxData, nil}, {KindCheckpoint, 0, nil},
	} {
		data := bytes.Repeat([]byte{7}, tt.size)
		p, err := j.Append(tt.kind, Synced, func(dst []byte, _ uint64) []byte { return append(dst, data...) })
		if !errors.Is(err, tt.err) {
			t.Fatalf("%c of %d bytes: %v", tt.kind, tt.size, err)
		}
		if err == nil {
			if err := p.Wait(within(t)); err != nil {
				t.Fatal(err)
			}
		}
	}
	n := 0
	if err := j.Replay(0, func(r Record) error { n += len(r.Data); return nil }); err != nil || n < 2*MaxData+2*MaxEntryData {
		t.Fatalf("replayed %d bytes, %v", n, err)
	}
}

func TestSecondProcessIsLockedOut(t *testing.T) {
	cfg := testConfig(t)
	mustOpen(t, cfg)
	if _, err := Open(cfg); err == nil || !strings.Contains(err.Error(), "lock journal") {
		t.Fatalf("second open: %v", err)
	}
}

func TestFileModes(t *testing.T) {
	cfg := testConfig(t)
	j := mustOpen(t, cfg)
	mustBegin(t, j)
	for range 400 {
		add(t, j, KindSettle, Written)
	}
	j.Close()
	if st, _ := os.Stat(cfg.Dir); st.Mode().Perm() != 0o700 {
		t.Errorf("directory has mode %v", st.Mode())
	}
	entries, err := os.ReadDir(cfg.Dir)
	if err != nil || len(entries) < 2 {
		t.Fatalf("%d files, %v", len(entries), err)
	}
	for _, e := range entries {
		if st, _ := e.Info(); st.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", e.Name(), st.Mode())
		}
	}
}

func TestContentIsSealed(t *testing.T) {
	cfg := testConfig(t)
	j := mustOpen(t, cfg)
	mustBegin(t, j)
	for range 20 {
		add(t, j, KindSettle, Synced)
	}
	j.Close()
	raw, err := os.ReadFile(filepath.Join(cfg.Dir, sealed.SegmentName(1)))
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(raw, []byte("record")) || bytes.Contains(raw, []byte("xxxxxxxx")) {
		t.Fatal("a segment holds clear text")
	}
	for name, change := range map[string]func(*Config){
		"key":    func(c *Config) { c.DataKey = bytes.Repeat([]byte{1}, 32) },
		"tenant": func(c *Config) { c.Tenant = "globex" },
	} {
		other := cfg
		change(&other)
		if _, err := Open(other); !errors.Is(err, ErrDamaged) {
			t.Errorf("another %s: %v", name, err)
		}
	}
}

func TestAppendOrderIsKept(t *testing.T) {
	j := mustOpen(t, testConfig(t))
	mustBegin(t, j)
	var pending []Pending
	for range 2000 {
		p, err := j.Append(KindSettle, Written, func(dst []byte, seq uint64) []byte { return append(dst, content(seq)...) })
		if err != nil {
			t.Fatal(err)
		}
		pending = append(pending, p)
	}
	for _, p := range pending {
		if err := p.Wait(within(t)); err != nil {
			t.Fatal(err)
		}
	}
	if err := j.Sync(within(t)); err != nil {
		t.Fatal(err)
	}
	if got := readAll(t, j, 0); len(got) != 2001 {
		t.Fatalf("%d records", len(got))
	}
}

func TestCursorFollows(t *testing.T) {
	cfg := testConfig(t)
	cfg.SegmentBytes = 512 << 10
	j := mustOpen(t, cfg)
	mustBegin(t, j)
	c := j.Cursor(0)
	defer c.Close()
	var read uint64
	for range 300 {
		for range 7 {
			add(t, j, KindSettle, Written)
		}
		last := add(t, j, KindSettle, Synced)
		err := c.Read(func(r Record) error {
			if r.Seq != read+1 || r.Kind == KindSettle && string(r.Data) != content(r.Seq) {
				return fmt.Errorf("record %d after %d", r.Seq, read)
			}
			read = r.Seq
			return nil
		})
		if err != nil || read != last {
			t.Fatalf("cursor at %d of %d: %v", read, last, err)
		}
	}
}
