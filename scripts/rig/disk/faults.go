package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

const fillName = "rig-fill"

// Fill leaves no byte free until Free.
func (d *Disk) Fill() error {
	f, err := os.OpenFile(filepath.Join(d.dir, fillName), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("fill disk: %w", err)
	}
	defer f.Close()
	var at int64
	for step := int64(256 << 20); step >= 4<<10; {
		err := unix.Fallocate(int(f.Fd()), 0, at, step)
		switch {
		case err == nil:
			at += step
		case errors.Is(err, unix.ENOSPC):
			step /= 2
		case !errors.Is(err, unix.EINTR):
			return fmt.Errorf("fill disk: %w", err)
		}
	}
	return nil
}

// Free undoes Fill.
func (d *Disk) Free() error {
	if err := os.Remove(filepath.Join(d.dir, fillName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("free disk: %w", err)
	}
	return nil
}

// Slow allows so many writes a second until it is called with 0. It needs the
// blkio controller of cgroup v1; see CanSlow. The limit is the device's, so it
// holds for the file system's own threads as well.
func (d *Disk) Slow(writesPerSecond int) error {
	name, err := d.device()
	if err != nil {
		return err
	}
	dev, err := os.ReadFile(filepath.Join("/sys/block", name, "dev"))
	if err != nil {
		return fmt.Errorf("number of loop device: %w", err)
	}
	line := fmt.Sprintf("%s %d", strings.TrimSpace(string(dev)), writesPerSecond)
	for _, group := range throttles() {
		if err := os.WriteFile(group, []byte(line), 0); err != nil {
			return fmt.Errorf("slow disk: %w", err)
		}
	}
	return nil
}

// CanSlow answers why disks cannot be slowed here, "" when they can.
func CanSlow() string {
	for _, group := range throttles() {
		f, err := os.OpenFile(group, os.O_WRONLY, 0)
		if err != nil {
			return "no blkio controller of cgroup v1"
		}
		f.Close()
	}
	return ""
}

// throttles are the files of the root group, where the kernel's threads are, and
// of this process's own.
func throttles() []string {
	const root, file = "/sys/fs/cgroup/blkio", "blkio.throttle.write_iops_device"
	out := []string{filepath.Join(root, file)}
	b, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return out
	}
	for line := range strings.Lines(string(b)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) == 3 && slices.Contains(strings.Split(f[1], ","), "blkio") && f[2] != "/" {
			out = append(out, filepath.Join(root, f[2], file))
		}
	}
	return out
}

// ext4Shutdown is the ioctl _IOR('X', 125, __u32), and the way that writes
// nothing more, not even the file system's journal.
const (
	ext4Shutdown = 0x8004587d
	noLogFlush   = 2
)

// Fail makes every later write and sync an error. Remount makes the disk good
// again, with what was synced before.
func (d *Disk) Fail() error {
	f, err := os.Open(d.dir)
	if err != nil {
		return fmt.Errorf("fail disk: %w", err)
	}
	defer f.Close()
	if err := unix.IoctlSetPointerInt(int(f.Fd()), ext4Shutdown, noLogFlush); err != nil {
		return fmt.Errorf("fail disk: %w", err)
	}
	return nil
}

// Flipped is a bit that Flip inverted.
type Flipped struct {
	path string
	at   int
	of   int
	is   byte // the damaged byte
	dir  string
}

// String tells where it is.
func (f Flipped) String() string {
	return fmt.Sprintf("%s byte %d of %d", strings.TrimPrefix(f.path, f.dir+"/"), f.at, f.of)
}

// Mended reports whether the damage is gone: the byte is another one again, or
// the file is no more.
func (f Flipped) Mended() (bool, error) {
	b, err := os.ReadFile(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("look at the flipped bit: %w", err)
	}
	return f.at >= len(b) || b[f.at] != f.is, nil
}

// Flip inverts one random bit of one random file whose path, from the disk's
// root, matches; it answers which. Only bytes that are not zero are hit: the
// unused end of a preallocated file is nobody's data.
func (d *Disk) Flip(rng *rand.Rand, matches func(path string) bool) (Flipped, error) {
	var files []string
	err := filepath.WalkDir(d.dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() && matches(strings.TrimPrefix(path, d.dir+"/")) {
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		return Flipped{}, fmt.Errorf("look for a file: %w", err)
	}
	slices.Sort(files)
	rng.Shuffle(len(files), func(i, j int) { files[i], files[j] = files[j], files[i] })
	for _, path := range files {
		b, err := os.ReadFile(path)
		if err != nil {
			return Flipped{}, fmt.Errorf("read file: %w", err)
		}
		var used []int
		for i, c := range b {
			if c != 0 {
				used = append(used, i)
			}
		}
		if len(used) == 0 {
			continue
		}
		at := used[rng.IntN(len(used))]
		f := Flipped{path: path, at: at, of: len(b), is: b[at] ^ (1 << rng.IntN(8)), dir: d.dir}
		return f, flip(path, at, f.is)
	}
	return Flipped{}, errors.New("no file that matches holds anything")
}

func flip(path string, at int, to byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("flip bit: %w", err)
	}
	_, err = f.WriteAt([]byte{to}, int64(at))
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("flip bit: %w", err)
	}
	return nil
}
