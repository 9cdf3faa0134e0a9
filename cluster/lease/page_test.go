package lease

import (
	"encoding/binary"
	"os"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

func TestPageIsReadByChildrenAndWrittenByNobodyElse(t *testing.T) {
	p, err := NewPage()
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	p.SetDeadline(0x0102030405060708)
	f, err := p.File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	m, err := unix.Mmap(int(f.Fd()), 0, os.Getpagesize(), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		t.Fatalf("map what a child gets: %v", err)
	}
	defer unix.Munmap(m)
	if got := binary.NativeEndian.Uint64(m); got != 0x0102030405060708 {
		t.Errorf("deadline on the page = %#x", got)
	}
	p.SetDeadline(42)
	if got := binary.NativeEndian.Uint64(m); got != 42 {
		t.Errorf("deadline on the page after a change = %d", got)
	}
	if _, err := f.WriteAt([]byte{1}, 0); err == nil {
		t.Error("a child wrote the page")
	}
	// Even the owner's own descriptor, opened anew for writing, is of no use.
	if w, err := os.OpenFile("/proc/self/fd/"+strconv.Itoa(int(f.Fd())), os.O_RDWR, 0); err == nil {
		defer w.Close()
		if _, err := w.WriteAt([]byte{1}, 0); err == nil {
			t.Error("the page was written through a descriptor opened anew")
		}
		if _, err := unix.Mmap(int(w.Fd()), 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err == nil {
			t.Error("the page was mapped for writing a second time")
		}
	}
	if err := unix.Ftruncate(int(f.Fd()), 0); err == nil {
		t.Error("the page was cut: readers would crash")
	}
}

func TestPageShowsNoLeaseWhenClosed(t *testing.T) {
	p, err := NewPage()
	if err != nil {
		t.Fatal(err)
	}
	p.SetDeadline(7)
	f, err := p.File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if err := p.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
	p.SetDeadline(9)
	b := make([]byte, 8)
	if _, err := f.ReadAt(b, 0); err != nil {
		t.Fatal(err)
	}
	if got := binary.NativeEndian.Uint64(b); got != 0 {
		t.Errorf("deadline of a closed page = %d", got)
	}
	if _, err := p.File(); err == nil {
		t.Error("a closed page was opened")
	}
}
