package durable_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/bulkhead-ai/bulkhead/worker/durable"
)

// counted is a segment that counts what is written.
type counted struct {
	durable.Segment
	written int
}

func (c *counted) WriteAt(b []byte, at int64) (int, error) {
	c.written += len(b)
	return c.Segment.WriteAt(b, at)
}

func TestZero(t *testing.T) {
	const size, chunk = 700_000, 256 << 10
	path := filepath.Join(t.TempDir(), "seg")
	full := bytes.Repeat([]byte{7}, size)
	if err := os.WriteFile(path, full, 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	f := &counted{Segment: durable.SegmentFile{File: file}}
	zero := func(from, to int64, check bool, written int) {
		t.Helper()
		f.written = 0
		if err := durable.Zero(f, from, to, check, nil); err != nil {
			t.Fatal(err)
		}
		if f.written != written {
			t.Errorf("zero [%d, %d): %d bytes written, want %d", from, to, f.written, written)
		}
		clear(full[from:to])
		if has, err := os.ReadFile(path); err != nil || !bytes.Equal(has, full) {
			t.Errorf("zero [%d, %d): the file is not as it should be (%v)", from, to, err)
		}
	}
	zero(0, chunk, false, chunk)
	zero(chunk+3, chunk+9, true, 6)
	zero(0, size, true, size-chunk) // the first piece is zero already
	zero(0, size, true, 0)
	zero(5, 5, false, 0)

	stop := errors.New("stop")
	f.written = 0
	pieces := 0
	err = durable.Zero(f, 0, size, false, func() error {
		if pieces++; pieces > 1 {
			return stop
		}
		return nil
	})
	if !errors.Is(err, stop) || f.written != chunk {
		t.Errorf("stopped after the first piece: %v, %d bytes written", err, f.written)
	}
}

func TestSegmentFile(t *testing.T) {
	file, err := os.Create(filepath.Join(t.TempDir(), "seg"))
	if err != nil {
		t.Fatal(err)
	}
	f := durable.SegmentFile{File: file}
	if err := f.Allocate(8 << 10); err != nil {
		t.Fatal(err)
	}
	if err := f.Datasync(); err != nil {
		t.Fatal(err)
	}
	if n, err := f.Size(); err != nil || n != 8<<10 && n != 0 { // 0: the file system allocates on writing
		t.Errorf("size %d, %v", n, err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := f.Datasync(); err == nil {
		t.Error("a closed file was synced")
	}
}
