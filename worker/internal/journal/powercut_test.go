package journal

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// powerCutDir makes the test binary a writer: it appends to the journal in that
// directory and prints every number that was acknowledged as synced.
const powerCutDir = "JOURNAL_TEST_POWER_CUT_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(powerCutDir); dir != "" {
		if err := writeUntilKilled(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func powerCutConfig(dir string) Config {
	key := make([]byte, 32)
	return Config{Dir: dir, Tenant: "acme", DataKey: key, SegmentBytes: minSegment, MinFree: -1}
}

func writeUntilKilled(dir string) error {
	j, err := Open(powerCutConfig(dir))
	if err != nil {
		return err
	}
	if _, err := j.Begin(j.Epoch()+1, nil); err != nil {
		return err
	}
	errs := make(chan error)
	for range 8 {
		go func() {
			for {
				p, err := j.Append(KindSettle, Synced, func(dst []byte, seq uint64) []byte { return append(dst, content(seq)...) })
				if err == nil {
					err = p.Wait(context.Background())
				}
				if err != nil {
					errs <- err
					return
				}
				os.Stdout.WriteString(strconv.FormatUint(p.Seq, 10) + "\n")
			}
		}()
	}
	return <-errs
}

// TestPowerCut stops a writing process in the middle of its work, copies the
// disk image below its file system, and opens the copy: what the kernel held in
// memory is lost as in a power cut. Every acknowledged record must be there.
func TestPowerCut(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root to mount a disk image")
	}
	for _, tool := range []string{"mkfs.ext4", "mount", "umount"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("needs %s: %v", tool, err)
		}
	}
	dir := t.TempDir()
	disk := filepath.Join(dir, "disk")
	if err := errors.Join(os.WriteFile(disk, nil, 0o600), os.Truncate(disk, 64<<20)); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mkfs.ext4", "-q", "-F", "-m", "0", disk).CombinedOutput(); err != nil {
		t.Fatalf("mkfs.ext4: %v: %s", err, out)
	}
	for round, acks := range []int{1, 60, 700, 1500} {
		t.Run(fmt.Sprintf("after %d", acks), func(t *testing.T) {
			live := mount(t, disk, filepath.Join(dir, fmt.Sprintf("live%d", round)))
			after := filepath.Join(dir, "after")
			last := cutPower(t, filepath.Join(live.point, "journal"), acks, func() { copyFile(t, disk, after) })
			live.unmount(t)
			cut := mount(t, after, filepath.Join(dir, fmt.Sprintf("cut%d", round)))
			j, err := Open(powerCutConfig(filepath.Join(cut.point, "journal")))
			if err != nil {
				t.Fatalf("open after the cut: %v", err)
			}
			seqs := readAll(t, j, 0)
			if len(seqs) == 0 || seqs[0] != 1 || seqs[len(seqs)-1] < last {
				t.Errorf("%d records, but %d was acknowledged", len(seqs), last)
			}
			mustBegin(t, j)
			if err := j.Close(); err != nil {
				t.Error(err)
			}
			cut.unmount(t)
			if err := os.Rename(after, disk); err != nil { // the next round goes on from here
				t.Fatal(err)
			}
		})
	}
}

// cutPower runs a writer until it has acknowledged so many records, stops it,
// calls copy, and kills it. It returns the greatest number acknowledged before
// the stop.
func cutPower(t *testing.T, journalDir string, acks int, copy func()) (last uint64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c := exec.CommandContext(ctx, os.Args[0])
	c.Env = append(os.Environ(), powerCutDir+"="+journalDir)
	c.Stderr = os.Stderr
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(out)
	read := func() bool {
		line, err := lines.ReadString('\n')
		if err != nil {
			return false
		}
		n, err := strconv.ParseUint(strings.TrimSpace(line), 10, 64)
		if err != nil {
			t.Errorf("writer printed %q", line)
		}
		last = max(last, n)
		return true
	}
	for range acks {
		if !read() {
			t.Fatal("the writer ended early")
		}
	}
	stopProcess(t, ctx, c.Process)
	copy()
	if err := c.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	for read() { // all that was in the pipe was acknowledged before the stop
	}
	var exit *exec.ExitError
	if err := c.Wait(); !errors.As(err, &exit) {
		t.Fatalf("writer: %v", err)
	}
	return last
}

// stopProcess returns when no thread of p runs any more.
func stopProcess(t *testing.T, ctx context.Context, p *os.Process) {
	t.Helper()
	if err := p.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	for ctx.Err() == nil {
		tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", p.Pid))
		if err != nil || len(tasks) == 0 {
			t.Fatalf("threads of the writer: %v", err)
		}
		running := false
		for _, task := range tasks {
			stat, _ := os.ReadFile(task)
			_, state, _ := strings.Cut(string(stat), ") ")
			running = running || !strings.HasPrefix(state, "T")
		}
		if !running {
			return
		}
	}
	t.Fatal("the writer does not stop")
}

type mounted struct{ point string }

// mount mounts a disk image, or skips the test where loop devices are missing.
func mount(t *testing.T, image, point string) mounted {
	t.Helper()
	if err := os.MkdirAll(point, 0o700); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mount", "-o", "loop", image, point).CombinedOutput(); err != nil {
		t.Skipf("cannot mount a disk image: %v: %s", err, out)
	}
	t.Cleanup(func() { syscall.Unmount(point, syscall.MNT_DETACH) })
	return mounted{point}
}

func (m mounted) unmount(t *testing.T) {
	t.Helper()
	if out, err := exec.Command("umount", m.point).CombinedOutput(); err != nil {
		t.Fatalf("umount: %v: %s", err, out)
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	in, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(out, in); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
}
