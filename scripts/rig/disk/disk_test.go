package disk

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const inside = "BULKHEAD_TEST_DISKS"

// alone runs the rest of a test in a mount namespace of its own.
func alone(t *testing.T) bool {
	t.Helper()
	if why := Missing(); why != "" {
		t.Skip("no disks here:", why)
	}
	if os.Getenv(inside) != "" {
		return true
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if strings.Contains(string(out), "--- SKIP") {
		t.Skipf("%s", out)
	}
	return false
}

func newDisk(t *testing.T) *Disk {
	t.Helper()
	dir := t.TempDir()
	d, err := Make(filepath.Join(dir, "disk.img"), filepath.Join(dir, "disk"), 64<<20)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Unmount(); err != nil {
			t.Error(err)
		}
	})
	return d
}

func (d *Disk) write(t *testing.T, name, text string, synced bool) {
	t.Helper()
	f, err := os.Create(filepath.Join(d.dir, name))
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteString(text)
	if synced {
		dir, derr := os.Open(d.dir)
		err = errors.Join(err, f.Sync(), derr, dir.Sync(), dir.Close())
	}
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}

func (d *Disk) read(name string) string {
	b, _ := os.ReadFile(filepath.Join(d.dir, name))
	return string(b)
}

func TestPowerCutKeepsWhatWasSynced(t *testing.T) {
	if !alone(t) {
		return
	}
	d := newDisk(t)
	d.write(t, "synced", "kept", true)
	d.write(t, "cached", strings.Repeat("lost", 1000), false)
	cut := filepath.Join(t.TempDir(), "cut.img")
	if err := d.Cut(cut); err != nil {
		t.Fatal(err)
	}
	d.write(t, "later", "x", true)
	if err := d.Put(cut, false); err != nil {
		t.Fatal(err)
	}
	if d.read("synced") != "kept" || d.read("cached") != "" || d.read("later") != "" {
		t.Errorf("after the cut: synced %q, cached %d bytes, later %q", d.read("synced"), len(d.read("cached")), d.read("later"))
	}
}

func TestBackupIsPutBackTwice(t *testing.T) {
	if !alone(t) {
		return
	}
	d := newDisk(t)
	d.write(t, "a", "old", true)
	backup := filepath.Join(t.TempDir(), "backup.img")
	if err := d.Cut(backup); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		d.write(t, "a", "new", true)
		if err := d.Put(backup, true); err != nil {
			t.Fatal(err)
		}
		if d.read("a") != "old" {
			t.Errorf("holds %q", d.read("a"))
		}
	}
	if err := d.Wipe(); err != nil {
		t.Fatal(err)
	}
	if d.read("a") != "" {
		t.Error("a wiped disk holds something")
	}
}

func TestFullDisk(t *testing.T) {
	if !alone(t) {
		return
	}
	d := newDisk(t)
	if err := d.Fill(); err != nil {
		t.Fatal(err)
	}
	err := os.WriteFile(filepath.Join(d.dir, "x"), bytes.Repeat([]byte("x"), 64<<10), 0o600)
	if !errors.Is(err, unix.ENOSPC) {
		t.Errorf("write on a full disk: %v", err)
	}
	if err := errors.Join(d.Free(), d.Free()); err != nil {
		t.Fatal(err)
	}
	d.write(t, "x", "y", true)
}

func TestFailingDisk(t *testing.T) {
	if !alone(t) {
		return
	}
	d := newDisk(t)
	d.write(t, "synced", "kept", true)
	open, err := os.Create(filepath.Join(d.dir, "open"))
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	if err := d.Fail(); err != nil {
		t.Fatal(err)
	}
	open.WriteString("x")
	if err := open.Sync(); !errors.Is(err, unix.EIO) {
		t.Errorf("sync on a failing disk: %v", err)
	}
	open.Close()
	if err := d.Remount(); err != nil {
		t.Fatal(err)
	}
	if d.read("synced") != "kept" {
		t.Error("what was synced is gone")
	}
}

func TestSlowDisk(t *testing.T) {
	if !alone(t) {
		return
	}
	if why := CanSlow(); why != "" {
		t.Skip("disks cannot be slowed here:", why)
	}
	d := newDisk(t)
	took := func() time.Duration {
		start := time.Now()
		for range 5 {
			d.write(t, "x", "y", true)
		}
		return time.Since(start)
	}
	if err := d.Slow(4); err != nil {
		t.Fatal(err)
	}
	slow := took() // at least five synced writes, four a second
	if err := d.Slow(0); err != nil {
		t.Fatal(err)
	}
	if slow < time.Second {
		t.Errorf("five synced writes at four a second took %s", slow)
	}
}

func TestFlip(t *testing.T) {
	if !alone(t) {
		return
	}
	d := newDisk(t)
	d.write(t, "a", "\x00\x00abc", true)
	d.write(t, "b", "abc", true)
	d.write(t, "zero", "\x00\x00", true)
	where, err := d.Flip(rand.New(rand.NewPCG(1, 1)), func(path string) bool { return path == "a" || path == "zero" })
	if err != nil || !strings.HasPrefix(where.String(), "a byte ") {
		t.Fatalf("%s, %v", where, err)
	}
	if mended, err := where.Mended(); err != nil || mended {
		t.Errorf("flipped and mended at once: %v, %v", mended, err)
	}
	got, differ := d.read("a"), 0
	for i, c := range []byte("\x00\x00abc") {
		if got[i] != c {
			differ++
		}
	}
	if differ != 1 || got[:2] != "\x00\x00" || d.read("b") != "abc" {
		t.Errorf("a is %q, b %q", got, d.read("b"))
	}
	if _, err := d.Flip(rand.New(rand.NewPCG(1, 1)), func(path string) bool { return path == "zero" }); err == nil {
		t.Error("flipped what nobody uses")
	}
}
