package books

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/worker/internal/books/bookstest"
	"github.com/bulkhead-ai/bulkhead/worker/internal/journal"
	"github.com/bulkhead-ai/bulkhead/worker/internal/limits"
	"github.com/bulkhead-ai/bulkhead/worker/internal/queue"
)

// life leads one request to an end that depends on n. It reports no errors: a
// killed process does not either.
func (b *Books) life(ctx context.Context, n int) {
	id := newID()
	e, err := b.Admit(ctx, queue.Ticket{Key: "key_bot", Scopes: b.Scopes("app", "prod", "bot")}, func() Plan { return planOf(id) })
	if err != nil {
		return
	}
	if n%3 == 1 {
		e.Covers(int64(100 + n%50))
	}
	if n%4 == 2 {
		line := lineOf(id)
		line.Provider = "spare"
		if e.Next(ctx, line, "upstream_error") != nil {
			return
		}
	}
	r := served(3, 4)
	if n%5 == 4 {
		r = Result{Outcome: bulkhead.Cancelled, Code: "client_gone", Status: 499, Unknown: true}
	}
	_, _ = e.Settle(ctx, r)
}

// load runs lives on several goroutines until stop is closed.
func (b *Books) load(stop <-chan struct{}) {
	var running sync.WaitGroup
	for w := range 4 {
		running.Go(func() {
			for n := w; ; n++ {
				select {
				case <-stop:
					return
				default:
					b.life(context.Background(), n)
				}
			}
		})
	}
	running.Wait()
}

// snapshotFile is a checkpoint as it was when its note became durable.
type snapshotFile struct {
	note uint64
	raw  []byte
}

// TestCheckpointUnderLoadIsExact takes checkpoints while requests run and
// compares, for each, a recovery that starts from it with one that starts from
// the first record, in a journal that ends right behind the note.
func TestCheckpointUnderLoadIsExact(t *testing.T) {
	d := open(t, t.TempDir(), bookstest.NewLedger(t))
	stop := make(chan struct{})
	var running sync.WaitGroup
	running.Go(func() { d.load(stop) })
	var taken []snapshotFile
	for range 25 {
		d.mustCheckpoint()
		note := d.journal.LastCheckpoint()
		files, err := os.ReadDir(d.saver.dir)
		if err != nil || len(files) != 1 {
			t.Fatalf("%d checkpoint files, %v", len(files), err)
		}
		raw, err := os.ReadFile(filepath.Join(d.saver.dir, files[0].Name()))
		if err != nil {
			t.Fatal(err)
		}
		taken = append(taken, snapshotFile{note, raw})
	}
	close(stop)
	running.Wait()
	if err := d.journal.Sync(within(t)); err != nil {
		t.Fatal(err)
	}
	for _, c := range taken {
		scratch, from := d.replayTo(c.note, nil), d.replayTo(c.note, c.raw)
		if scratch != from {
			t.Fatalf("checkpoint noted in record %d\nfrom scratch:\n%sfrom the checkpoint:\n%s", c.note, scratch, from)
		}
	}
	if len(read(t, d.journal)) < 50 {
		t.Error("hardly any requests ran beside the checkpoints")
	}
}

// replayTo recovers the counters of a journal that ends at record end, from the
// checkpoint noted there if its file is given.
func (d *desk) replayTo(end uint64, file []byte) string {
	d.t.Helper()
	lim, err := limits.New(bookstest.Policy(generous()))
	if err != nil {
		d.t.Fatal(err)
	}
	b := &Books{limits: lim}
	counted, from := uint64(0), uint64(1)
	if file != nil {
		counted, from = d.restoreInto(lim, end, file)
	}
	found := &unfinished{intents: map[attemptID]*openIntent{}, between: map[string]*openIntent{}}
	stop := errors.New("end")
	err = d.journal.Replay(from, func(r journal.Record) error {
		if r.Seq > end {
			return stop
		}
		return b.recount(r, r.Seq > counted, found)
	})
	if err != nil && !errors.Is(err, stop) {
		d.t.Fatal(err)
	}
	held := map[uint64]bool{}
	for _, o := range found.intents {
		held[o.reservation] = true
		lim.KeepID(o.reservation)
	}
	for _, o := range found.between {
		held[o.reservation] = true
		lim.SettleID(o.reservation, 0, 0)
	}
	for _, id := range lim.Open() {
		lim.CancelID(id)
	}
	return counters(lim.Snapshot())
}

func (d *desk) restoreInto(lim *limits.Limiter, note uint64, file []byte) (at, oldest uint64) {
	d.t.Helper()
	var data []byte
	stop := errors.New("found")
	if err := d.journal.Replay(note, func(r journal.Record) error {
		data = append(data, r.Data...)
		return stop
	}); !errors.Is(err, stop) {
		d.t.Fatal(err)
	}
	for i := range 8 {
		at, oldest = at<<8|uint64(data[i]), oldest<<8|uint64(data[8+i])
	}
	snapshot, err := d.saver.aead.Open(nil, nil, file, data[:noteHead])
	if err == nil {
		err = lim.Restore(snapshot)
	}
	if err != nil {
		d.t.Fatal(err)
	}
	return at, oldest
}

// TestCheckpointWaitsForASettlement holds a settlement between the counters and
// its record: a checkpoint in that moment would keep the one and lose the other.
func TestCheckpointWaitsForASettlement(t *testing.T) {
	d := open(t, t.TempDir(), bookstest.NewLedger(t))
	d.settling.RLock()
	done := make(chan error, 1)
	go func() { done <- d.checkpoint(journal.Replicated) }()
	for d.settling.TryRLock() { // until the checkpoint waits for the lock
		d.settling.RUnlock()
		select {
		case err := <-done:
			t.Fatalf("the checkpoint did not wait: %v", err)
		case <-time.After(time.Millisecond):
		}
	}
	if n := d.journal.LastCheckpoint(); n != 0 {
		t.Errorf("checkpoint noted in record %d beside a settlement", n)
	}
	d.settling.RUnlock()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestDamagedCheckpoint: without its file, recovery reads more; when the journal
// has dropped what it would have to read, the books stay closed.
func TestDamagedCheckpoint(t *testing.T) {
	damage := map[string]func(t *testing.T, file string){
		"missing": func(t *testing.T, file string) {
			if err := os.Remove(file); err != nil {
				t.Fatal(err)
			}
		},
		"flipped": func(t *testing.T, file string) {
			raw, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			raw[len(raw)/2] ^= 1
			if err := os.WriteFile(file, raw, 0o600); err != nil {
				t.Fatal(err)
			}
		},
		"empty": func(t *testing.T, file string) {
			if err := os.Truncate(file, 0); err != nil {
				t.Fatal(err)
			}
		},
	}
	for name, spoil := range damage {
		t.Run(name, func(t *testing.T) {
			dir, ledger := t.TempDir(), bookstest.NewLedger(t)
			d := open(t, dir, ledger)
			for range 3 {
				d.settle(d.admit(newID()), served(1, 2))
			}
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
			spoil(t, onlyFile(t, d))
			recovered(t, dir, ledger)
		})
		t.Run(name+" after retention", func(t *testing.T) {
			dir, ledger := t.TempDir(), bookstest.NewLedger(t)
			cfg := configIn(dir)
			cfg.SegmentBytes, cfg.MaxBytes = 256<<10, 1<<20
			d := openWith(t, cfg, ledger)
			for d.journal.Oldest() == 1 {
				for range 20 {
					d.admitMany(20)
				}
				d.mustCheckpoint()
				d.bookAll()
			}
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
			whole := copyDir(t, dir)
			spoil(t, onlyFile(t, d))
			b, err := Open(cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer b.Close()
			serve, _ := ledger.Begin()
			if err := b.Begin(Epoch{Number: serve.Epoch, AppliedSeq: serve.AppliedSeq, Frontier: serve.Frontier}); !errors.Is(err, ErrDamaged) {
				t.Errorf("books without their counters: %v, want ErrDamaged", err)
			}
			cfg.Dir, cfg.LogbookDir = filepath.Join(whole, "journal"), filepath.Join(whole, "logbook")
			if again := openWith(t, cfg, ledger); counters(again.limits.Snapshot()) != counters(d.limits.Snapshot()) {
				t.Error("the undamaged checkpoint gives other counters")
			}
		})
	}
}

// admitMany runs n requests at once, so that they share syncs.
func (d *desk) admitMany(n int) {
	d.t.Helper()
	var running sync.WaitGroup
	for range n {
		running.Go(func() { d.life(context.Background(), 0) })
	}
	running.Wait()
}

func onlyFile(t *testing.T, d *desk) string {
	t.Helper()
	files, err := os.ReadDir(d.saver.dir)
	if err != nil || len(files) != 1 {
		t.Fatalf("%d checkpoint files, %v", len(files), err)
	}
	return filepath.Join(d.saver.dir, files[0].Name())
}

// The parts that the killed process plays are given by these variables.
const (
	victimDir   = "BOOKS_TEST_DIR"
	victimEpoch = "BOOKS_TEST_EPOCH"
)

// TestKilledUnderLoad kills a process that takes checkpoints under load, again
// and again on the same files, and recovers each time.
func TestKilledUnderLoad(t *testing.T) {
	if dir := os.Getenv(victimDir); dir != "" {
		victim(t, dir)
		return
	}
	dir, ledger := t.TempDir(), bookstest.NewLedger(t)
	for round := range 8 {
		serve, _ := ledger.Begin()
		cmd := exec.Command(os.Args[0], "-test.run=^TestKilledUnderLoad$")
		cmd.Env = append(os.Environ(), victimDir+"="+dir, fmt.Sprintf("%s=%d", victimEpoch, serve.Epoch))
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var line [6]byte
		if _, err := out.Read(line[:]); err != nil || string(line[:]) != "ready\n" {
			t.Errorf("victim says %q, %v", line, err)
		}
		time.Sleep(time.Duration(20+17*round) * time.Millisecond) // where the kill hits is meant to vary
		if err := cmd.Process.Kill(); err != nil {
			t.Error(err)
		}
		_ = cmd.Wait() // killed, as ordered
		all := recovered(t, dir, ledger)
		if len(all) == 0 {
			t.Error("the victim served nothing")
		}
		if t.Failed() {
			return
		}
	}
	d := open(t, dir, ledger)
	d.bookAll()
	var requests uint64
	for _, r := range ledger.Rows() {
		requests += uint64(r.Requests)
	}
	if all := read(t, d.journal); requests != uint64(len(all)) {
		t.Errorf("the ledger counts %d requests, the journal %d", requests, len(all))
	}
}

func victim(t *testing.T, dir string) {
	b, err := Open(configIn(dir))
	if err != nil {
		t.Fatal(err)
	}
	var epoch bulkhead.Epoch
	if _, err := fmt.Sscan(os.Getenv(victimEpoch), &epoch); err != nil {
		t.Fatal(err)
	}
	if err := b.Begin(Epoch{Number: epoch, Frontier: frontier(t)}); err != nil {
		t.Fatal(err)
	}
	os.Stdout.WriteString("ready\n")
	go b.load(nil)
	for {
		if err := b.checkpoint(journal.Replicated); err != nil && !strings.Contains(err.Error(), "closed") {
			t.Fatal(err)
		}
	}
}
