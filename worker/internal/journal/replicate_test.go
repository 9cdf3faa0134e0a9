package journal

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/worker/control"
	"github.com/bulkhead-ai/bulkhead/worker/sealed"
)

// shipped keeps what a journal ships, as files.
type shipped struct {
	mu     sync.Mutex
	files  map[uint64][]byte
	pieces []control.Piece
}

func (s *shipped) Ship(p control.Piece) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.files == nil {
		s.files = map[uint64][]byte{}
	}
	p.Data = slices.Clone(p.Data)
	s.pieces = append(s.pieces, p)
	f := s.files[p.Segment]
	if f == nil {
		f = make([]byte, p.Offset) // written before anybody listened
	}
	if int64(len(f)) != p.Offset {
		panic("a piece does not continue its file")
	}
	s.files[p.Segment] = append(f, p.Data...)
}

func (s *shipped) get(first uint64) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.files[first])
}

// expired is a wait that does not wait.
func expired() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

// TestShippedIsWhatLiesOnDisk: byte for byte, over several segments and openings.
func TestShippedIsWhatLiesOnDisk(t *testing.T) {
	cfg := testConfig(t)
	cfg.SegmentBytes = minSegment
	s := &shipped{}
	cfg.Replicator = s
	for range 3 {
		j := mustOpen(t, cfg)
		p, err := j.Begin(j.Epoch()+1, nil)
		if err == nil {
			err = p.Wait(expired())
		}
		if !errors.Is(err, context.Canceled) {
			t.Fatalf("an epoch that nobody has confirmed: %v", err)
		}
		for range 400 {
			add(t, j, KindSettle, Written)
		}
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
	}
	names, err := filepath.Glob(filepath.Join(cfg.Dir, "*.seg"))
	if err != nil || len(names) < 3 || len(names) != len(s.files) {
		t.Fatalf("%d segments, %d shipped, %v", len(names), len(s.files), err)
	}
	for _, name := range names {
		on, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		first, _ := sealed.ParseSegmentName(filepath.Base(name))
		was := s.get(first)
		if len(was) == 0 || !bytes.HasPrefix(on, was) || !sealed.AllZero(on[len(was):]) {
			t.Errorf("%s is not what was shipped", filepath.Base(name))
		}
	}
	for _, p := range s.pieces {
		if len(p.Data) > control.MaxPiece {
			t.Errorf("a piece of %d bytes", len(p.Data))
		}
	}
}

func TestReplicatedWaitsForDiskAndCopies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := testConfig(t)
		gate := make(chan struct{}, 100)
		slow := &faults{lazy: true}
		cfg.FS, cfg.Replicator = slow, &shipped{}
		j := mustOpen(t, cfg)
		defer j.Close()
		e, err := j.Begin(7, nil)
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if !e.Reached(Synced) || e.Reached(Replicated) {
			t.Fatal("confirmed before anybody has said so")
		}
		if seq, _ := j.Confirmed().Head(); seq != 0 {
			t.Errorf("record %d is confirmed", seq)
		}
		j.Acked(e.Seq)
		if err := e.Wait(expired()); err != nil || !e.Reached(Replicated) {
			t.Fatal(err)
		}
		if seq, hash := j.Confirmed().Head(); seq != e.Seq || hash == [32]byte{} {
			t.Errorf("record %d is confirmed", seq)
		}

		// The copies are quicker than the disk.
		slow.mu.Lock()
		slow.sync = func(string) error { <-gate; return nil }
		slow.mu.Unlock()
		p, err := j.Append(KindSettle, Replicated, func(dst []byte, _ uint64) []byte { return append(dst, 1) })
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		j.Acked(p.Seq)
		synctest.Wait()
		if p.Reached(Replicated) || p.Reached(Synced) || !p.Reached(Written) {
			t.Error("confirmed before it is on the own disk")
		}
		if seq, _ := j.Confirmed().Head(); seq != e.Seq {
			t.Errorf("record %d is confirmed, which is not on the own disk", seq)
		}
		gate <- struct{}{}
		if err := p.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}

		// One who waits for the disk alone does not wait for the copies, and what
		// nobody has written is not confirmed.
		j.Acked(1 << 40)
		gate <- struct{}{}
		q, err := j.Append(KindSettle, Synced, func(dst []byte, _ uint64) []byte { return append(dst, 1) })
		if err == nil {
			err = q.Wait(t.Context())
		}
		if err != nil || q.Reached(Replicated) {
			t.Errorf("%v, replicated %v", err, q.Reached(Replicated))
		}
		if seq, _ := j.Confirmed().Head(); seq != p.Seq {
			t.Errorf("record %d is confirmed, want %d", seq, p.Seq)
		}
		close(gate)
		flushed := make(chan error, 1)
		go func() { flushed <- j.Flush(t.Context(), Replicated) }()
		synctest.Wait()
		select {
		case err := <-flushed:
			t.Fatalf("flushed without the copies: %v", err)
		default:
		}
		j.Acked(q.Seq)
		if err := <-flushed; err != nil {
			t.Error(err)
		}
	})
}

// TestConfirmedAgainAfterAnOpening: what is on disk counts only once it is
// acknowledged under the present epoch, and readers of the safe part see it then.
func TestConfirmedAgainAfterAnOpening(t *testing.T) {
	cfg := testConfig(t)
	j := mustOpen(t, cfg)
	mustBegin(t, j)
	last := add(t, j, KindSettle, Replicated) // nobody keeps copies: as Synced
	j.Close()
	cfg.Replicator = &shipped{}
	j = mustOpen(t, cfg)
	if seq, _ := j.Confirmed().Head(); seq != 0 {
		t.Errorf("record %d is confirmed before anybody has said so", seq)
	}
	e, err := j.Begin(j.Epoch()+1, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Sync(within(t)); err != nil {
		t.Fatal(err)
	}
	c := j.Confirmed().Cursor(1)
	defer c.Close()
	count := func() (n int) {
		t.Helper()
		if err := c.Read(func(Record) error { n++; return nil }); err != nil {
			t.Fatal(err)
		}
		return n
	}
	if n := count(); n != 0 {
		t.Errorf("%d records are safe to read", n)
	}
	j.Acked(last)
	if n := count(); n != int(last) {
		t.Errorf("%d records, want %d", n, last)
	}
	j.Acked(e.Seq)
	if n := count(); n != 1 {
		t.Errorf("%d more records, want the epoch's", n)
	}
}

// TestEndsOfAWait: closing and poison end it; a record that nobody confirms does
// not keep a journal from closing.
func TestEndsOfAWait(t *testing.T) {
	cfg := testConfig(t)
	cfg.Replicator = &shipped{}
	j := mustOpen(t, cfg)
	e, err := j.Begin(1, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Sync(within(t)); err != nil {
		t.Fatal(err)
	}
	j.Close()
	if err := e.Wait(within(t)); !errors.Is(err, ErrClosed) {
		t.Errorf("closed: %v", err)
	}

	disk := &faults{}
	cfg = testConfig(t)
	cfg.FS, cfg.Replicator = disk, &shipped{}
	j = mustOpen(t, cfg)
	if e, err = j.Begin(1, nil); err != nil {
		t.Fatal(err)
	}
	if err := j.Sync(within(t)); err != nil {
		t.Fatal(err)
	}
	disk.mu.Lock()
	disk.sync = func(string) error { return errors.New("io error") }
	disk.mu.Unlock()
	if err := appendSome(t, j, KindSettle); !errors.Is(err, ErrPoisoned) {
		t.Fatalf("%v", err)
	}
	if err := e.Wait(within(t)); !errors.Is(err, ErrPoisoned) {
		t.Errorf("poisoned: %v", err)
	}
}

// TestGroupsAreOfOneEpoch: records of two epochs that are written at once come in
// two groups.
func TestGroupsAreOfOneEpoch(t *testing.T) {
	cfg := testConfig(t)
	j := mustOpen(t, cfg)
	j.mu.Lock() // so that the writer takes them together
	for e := bulkhead.Epoch(4); e < 7; e++ {
		j.epoch, j.began = e, true
		for _, kind := range []Kind{KindEpoch, KindSettle, KindSettle} {
			if _, err := j.addLocked(kind, Synced, func(dst []byte, _ uint64) []byte { return append(dst, 1) }); err != nil {
				t.Fatal(err)
			}
		}
	}
	j.mu.Unlock()
	if err := j.Sync(within(t)); err != nil {
		t.Fatal(err)
	}
	want := bulkhead.Epoch(4)
	if err := j.Replay(1, func(r Record) error {
		if r.Kind == KindEpoch && r.Seq > 1 {
			want++
		}
		if r.Epoch != want {
			t.Errorf("record %d is of epoch %d, want %d", r.Seq, r.Epoch, want)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	j.Close()
	f, err := os.Open(filepath.Join(cfg.Dir, sealed.SegmentName(1)))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	head := make([]byte, sealed.SectorSize)
	if _, err := f.ReadAt(head, 0); err != nil {
		t.Fatal(err)
	}
	h, err := sealed.ParseHeader(head)
	if err != nil {
		t.Fatal(err)
	}
	r, epochs := sealed.NewReader(f, h), []bulkhead.Epoch{}
	for r.Next() {
		epochs = append(epochs, r.Group().Epoch)
	}
	if !slices.Equal(epochs, []bulkhead.Epoch{4, 5, 6}) || r.Err() != nil {
		t.Errorf("groups of epochs %v, %v", epochs, r.Err())
	}
}

// TestRetentionWaitsForTheCopies: nothing is deleted that a take-over may need.
func TestRetentionWaitsForTheCopies(t *testing.T) {
	cfg := testConfig(t)
	cfg.SegmentBytes, cfg.MaxBytes = minSegment, 4*minSegment
	cfg.Replicator = &shipped{}
	j := mustOpen(t, cfg)
	if _, err := j.Begin(1, nil); err != nil {
		t.Fatal(err)
	}
	for j.Size() < 3*minSegment+minSegment/2 {
		add(t, j, KindSettle, Synced)
	}
	note := add(t, j, KindCheckpoint, Synced)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := j.Retain(ctx, note-1); err != nil || j.Oldest() != 1 {
		t.Fatalf("before the checkpoint is confirmed: from record %d, %v", j.Oldest(), err)
	}
	j.Acked(note)
	if err := j.Retain(ctx, note-1); !errors.Is(err, context.DeadlineExceeded) || j.Oldest() != 1 {
		t.Fatalf("before the retention record is confirmed: from record %d, %v", j.Oldest(), err)
	}
	done := make(chan error, 1)
	go func() { done <- j.Retain(within(t), note-1) }()
	for {
		select {
		case err := <-done:
			if err != nil || j.Oldest() == 1 {
				t.Errorf("from record %d, %v", j.Oldest(), err)
			}
			return
		default:
			seq, _ := j.Head()
			j.Acked(seq)
		}
	}
}
