package journal

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// faults is the real disk with errors put in between.
type faults struct {
	disk
	mu     sync.Mutex
	write  func(name string, off int64) error
	sync   func(name string) error
	alloc  func(size int64) error
	rename func(to string) error
	free   int64 // 0 = the real one
	lazy   bool  // nothing is synced: for tests that open thousands of times
}

func (f *faults) MakeDir(dir string) error {
	if f.lazy {
		return os.MkdirAll(dir, 0o700)
	}
	return f.disk.MakeDir(dir)
}

func (f *faults) SyncDir(dir string) error {
	if f.lazy {
		return nil
	}
	return f.disk.SyncDir(dir)
}

func (f *faults) Create(name string) (File, error) {
	file, err := f.disk.Create(name)
	return &faultFile{file, f, name}, err
}

func (f *faults) Open(name string, write bool) (File, error) {
	file, err := f.disk.Open(name, write)
	if err != nil {
		return nil, err
	}
	return &faultFile{file, f, name}, nil
}

func (f *faults) Rename(from, to string) error {
	f.mu.Lock()
	fail := f.rename
	f.mu.Unlock()
	if fail != nil {
		if err := fail(to); err != nil {
			return err
		}
	}
	return f.disk.Rename(from, to)
}

func (f *faults) Free(dir string) (int64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.free != 0 {
		return f.free, nil
	}
	return f.disk.Free(dir)
}

// set changes the faults while the journal runs.
func (f *faults) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

type faultFile struct {
	File
	f    *faults
	name string
}

func (f *faultFile) WriteAt(b []byte, off int64) (int, error) {
	f.f.mu.Lock()
	fail := f.f.write
	f.f.mu.Unlock()
	if fail != nil {
		if err := fail(f.name, off); err != nil {
			return 0, err
		}
	}
	return f.File.WriteAt(b, off)
}

func (f *faultFile) Datasync() error {
	f.f.mu.Lock()
	fail := f.f.sync
	f.f.mu.Unlock()
	if fail != nil {
		if err := fail(f.name); err != nil {
			return err
		}
	}
	if f.f.lazy {
		return nil
	}
	return f.File.Datasync()
}

func (f *faultFile) Allocate(size int64) error {
	f.f.mu.Lock()
	fail := f.f.alloc
	f.f.mu.Unlock()
	if fail != nil {
		if err := fail(size); err != nil {
			return err
		}
	}
	return f.File.Allocate(size)
}

var (
	_ FS        = (*faults)(nil)
	_ io.Closer = (*faultFile)(nil)
)

func isSegment(name string) bool { return strings.HasSuffix(name, ".seg") }

// appendSome queues one record and waits for it.
func appendSome(t *testing.T, j *Journal, kind Kind) error {
	p, err := j.Append(kind, Synced, func(dst []byte, seq uint64) []byte { return append(dst, content(seq)...) })
	if err != nil {
		return err
	}
	return p.Wait(within(t))
}

func TestDiskErrorsPoison(t *testing.T) {
	eio := &fs.PathError{Op: "test", Path: "disk", Err: syscall.EIO}
	for name, arm := range map[string]func(*faults){
		"sync":   func(f *faults) { f.sync = func(string) error { return eio } },
		"write":  func(f *faults) { f.write = func(n string, _ int64) error { return eio } },
		"rename": func(f *faults) { f.rename = func(string) error { return eio } },
	} {
		t.Run(name, func(t *testing.T) {
			f := &faults{}
			cfg := testConfig(t)
			cfg.FS = f
			j := mustOpen(t, cfg)
			mustBegin(t, j)
			var last uint64
			for range 20 {
				last = add(t, j, KindSettle, Synced)
			}
			f.set(func() { arm(f) })
			var err error
			for range 2000 { // rename fails only when a segment is full
				if err = appendSome(t, j, KindSettle); err != nil {
					break
				}
				last++
			}
			if !errors.Is(err, ErrPoisoned) || !errors.Is(err, syscall.EIO) {
				t.Fatalf("append on a bad disk: %v", err)
			}
			f.set(func() { f.sync, f.write, f.rename = nil, nil, nil })
			if err := appendSome(t, j, KindSettle); !errors.Is(err, ErrPoisoned) {
				t.Fatalf("append after the disk has recovered: %v", err)
			}
			if err := j.Sync(within(t)); !errors.Is(err, ErrPoisoned) {
				t.Fatalf("sync: %v", err)
			}
			if err := j.Health(); !errors.Is(err, ErrPoisoned) {
				t.Fatalf("health: %v", err)
			}
			if seq, _ := j.Head(); seq != last {
				t.Fatalf("head %d, want %d", seq, last)
			}
			if err := j.Close(); !errors.Is(err, ErrPoisoned) {
				t.Fatalf("close: %v", err)
			}
			cfg.AnchorSeq, cfg.AnchorHash = j.Head()
			j = mustOpen(t, cfg)
			if got := readAll(t, j, 0); uint64(len(got)) < last {
				t.Fatalf("%d records after reopening, want at least %d", len(got), last)
			}
		})
	}
}

// TestLowSpace fills a journal that cannot grow: new work is refused, every
// accepted intent is settled, and space that returns is used.
func TestLowSpace(t *testing.T) {
	full := &fs.PathError{Op: "fallocate", Path: "disk", Err: syscall.ENOSPC}
	for name, arm := range map[string]func(*faults, *Config) func(){
		"disk full": func(f *faults, _ *Config) func() {
			f.alloc = func(int64) error { return full }
			return func() { f.alloc = nil }
		},
		"min free": func(f *faults, c *Config) func() {
			c.MinFree = 1 << 20
			f.free = 1<<20 + firstSegment
			return func() { f.free = 0 }
		},
		"quota": func(f *faults, c *Config) func() {
			c.MaxBytes = firstSegment + minSegment - 1
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := &faults{}
			cfg := testConfig(t)
			cfg.FS = f
			var relief func()
			if name == "disk full" {
				mustOpen(t, cfg).Close() // the first segment exists
			}
			relief = arm(f, &cfg)
			j := mustOpen(t, cfg)
			mustBegin(t, j)
			accepted := 0
			var refused error
			for refused == nil && accepted < 10_000 {
				_, refused = j.Append(KindIntent, Written, func(dst []byte, seq uint64) []byte { return append(dst, content(seq)...) })
				if refused == nil {
					accepted++
				} else if err := j.Sync(within(t)); err != nil {
					t.Fatal(err)
				} else if _, err := j.Append(KindIntent, Synced, func(dst []byte, _ uint64) []byte { return dst }); err == nil {
					accepted++ // written together, records take less than was set aside
					refused = nil
				}
			}
			if !errors.Is(refused, ErrLowSpace) || accepted < 10 {
				t.Fatalf("after %d intents: %v", accepted, refused)
			}
			if err := j.Health(); !errors.Is(err, ErrLowSpace) {
				t.Fatalf("health after %d intents: %v", accepted, err)
			}
			if _, err := j.Append(KindRefuse, Written, func(dst []byte, _ uint64) []byte { return dst }); !errors.Is(err, ErrLowSpace) {
				t.Fatalf("refusal: %v", err)
			}
			largest := make([]byte, MaxEntryData)
			for i := range accepted {
				p, err := j.Append(KindSettle, Synced, func(dst []byte, _ uint64) []byte { return append(dst, largest...) })
				if err == nil {
					err = p.Wait(within(t))
				}
				if err != nil {
					t.Fatalf("settlement %d of %d: %v", i, accepted, err)
				}
			}
			if relief == nil {
				return
			}
			f.set(relief)
			j.mu.Lock()
			j.tried = j.tried.Add(-2 * retryAfter)
			j.mu.Unlock()
			j.Health() // starts the preparation
			for ctx := within(t); j.Health() != nil; {
				if ctx.Err() != nil {
					t.Fatalf("does not recover: %v", j.Health())
				}
			}
			if err := appendSome(t, j, KindIntent); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestNewJournalWithoutSpace(t *testing.T) {
	cfg := testConfig(t)
	cfg.FS = &faults{alloc: func(int64) error { return syscall.ENOSPC }}
	if _, err := Open(cfg); !errors.Is(err, ErrLowSpace) || !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("open: %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(cfg.Dir, "*")); len(left) != 0 {
		t.Fatalf("left behind: %v", left)
	}
}

// TestRestartKeepsTheReserve: a spare that was prepared is still there after a
// crash, even if the disk has filled up meanwhile.
func TestRestartKeepsTheReserve(t *testing.T) {
	cfg := testConfig(t)
	j := mustOpen(t, cfg)
	mustBegin(t, j)
	for {
		add(t, j, KindSettle, Synced)
		j.mu.Lock()
		n := len(j.spares)
		j.mu.Unlock()
		if n > 0 {
			break
		}
	}
	j.Close()
	cfg.FS = &faults{alloc: func(int64) error { return syscall.ENOSPC }}
	j = mustOpen(t, cfg)
	mustBegin(t, j)
	for range 600 {
		add(t, j, KindSettle, Written)
	}
	if names, _ := filepath.Glob(filepath.Join(cfg.Dir, "*"+".seg")); len(names) != 2 {
		t.Fatalf("segments: %v", names)
	}
}

func TestRetain(t *testing.T) {
	cfg := testConfig(t)
	cfg.SegmentBytes, cfg.MaxBytes = minSegment, 8*minSegment
	j := mustOpen(t, cfg)
	mustBegin(t, j)
	var covered uint64
	retain := func() {
		t.Helper()
		if err := j.Retain(within(t), covered); err != nil {
			t.Fatal(err)
		}
	}
	for j.Size() < 7*minSegment {
		add(t, j, KindSettle, Written)
	}
	retain()
	if j.Oldest() != 1 {
		t.Fatal("dropped what is not booked")
	}
	covered, _ = j.Head()
	retain()
	if j.Oldest() != 1 {
		t.Fatal("dropped without a checkpoint")
	}
	for range 10_000 {
		add(t, j, KindSettle, Written)
		if j.Size() > cfg.MaxBytes/4*3 {
			add(t, j, KindCheckpoint, Synced)
			covered, _ = j.Head()
			retain()
		}
	}
	if j.Oldest() == 1 || j.Size() > cfg.MaxBytes {
		t.Fatalf("oldest %d, %d bytes", j.Oldest(), j.Size())
	}
	seqs := readAll(t, j, 0)
	oldest := j.Oldest()
	if seqs[0] != oldest {
		t.Fatalf("replay begins at %d, oldest is %d", seqs[0], oldest)
	}
	j.Close()
	j = mustOpen(t, cfg)
	if j.Oldest() != oldest {
		t.Fatalf("after reopening: oldest %d, want %d", j.Oldest(), oldest)
	}
	readAll(t, j, 0)
}
