package disk

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Disk is one image and where it is mounted. It is not for concurrent use.
type Disk struct {
	image, dir string
	size       int64
}

// Missing answers why there can be no disks here, "" when there can.
func Missing() string {
	if os.Geteuid() != 0 {
		return "not root"
	}
	for _, tool := range []string{"mkfs.ext4", "mount", "umount", "losetup", "cp"} {
		if _, err := exec.LookPath(tool); err != nil {
			return "no " + tool
		}
	}
	if out, err := exec.Command("losetup", "-f").CombinedOutput(); err != nil {
		return fmt.Sprintf("no loop device: %s", out)
	}
	return ""
}

// Make makes an image of size bytes, a sparse file, and mounts it at dir.
func Make(image, dir string, size int64) (*Disk, error) {
	d := &Disk{image: image, dir: dir, size: size}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make mount point: %w", err)
	}
	if err := d.format(); err != nil {
		return nil, err
	}
	return d, d.mount()
}

// Dir is where the disk is mounted.
func (d *Disk) Dir() string { return d.dir }

func (d *Disk) format() error {
	if err := os.Remove(d.image); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove image: %w", err)
	}
	f, err := os.Create(d.image)
	if err != nil {
		return fmt.Errorf("create image: %w", err)
	}
	if err := errors.Join(f.Truncate(d.size), f.Close()); err != nil {
		return fmt.Errorf("size image: %w", err)
	}
	return run("mkfs.ext4", "-q", "-F", d.image)
}

func (d *Disk) mount() error { return run("mount", "-o", "loop", d.image, d.dir) }

// Unmount waits for the last killed process to let go.
func (d *Disk) Unmount() error {
	var err error
	for range 200 {
		if err = run("umount", d.dir); err == nil {
			return nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	return err
}

// Wipe makes the disk empty, as a new one is. Nobody may have files open.
func (d *Disk) Wipe() error {
	if err := d.Unmount(); err != nil {
		return err
	}
	if err := d.format(); err != nil {
		return err
	}
	return d.mount()
}

// Remount takes the disk off and on again, as a reboot does: the journal of a
// file system that was stopped is replayed. As long as a dying process has the
// disk in a namespace of its own, the kernel gives the stopped one again, so what
// was mounted is tried.
func (d *Disk) Remount() error {
	var err error
	for range 200 {
		if err = d.Unmount(); err == nil {
			err = d.mount()
		}
		if err != nil {
			return err
		}
		if err = d.probe(); err == nil {
			return nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	return fmt.Errorf("remount %s: %w", d.dir, err)
}

// probe writes a file and removes it.
func (d *Disk) probe() error {
	f, err := os.CreateTemp(d.dir, ".probe-")
	if err != nil {
		return err
	}
	return errors.Join(f.Close(), os.Remove(f.Name()))
}

// Cut copies the disk as it is at one instant to the file: what a power cut then
// would leave. Everybody who writes must be stopped; the kernel may still write
// what they left, so Cut copies until nothing was written meanwhile.
func (d *Disk) Cut(to string) error {
	stat, err := d.stat()
	if err != nil {
		return err
	}
	for range 100 {
		before, err := writes(stat)
		if err != nil {
			return err
		}
		if err := run("cp", "--sparse=always", d.image, to); err != nil {
			return err
		}
		if after, err := writes(stat); err == nil && after == before && after[1] == 0 {
			return nil
		}
	}
	return errors.New("the disk is never still")
}

// Put replaces the disk by an image: of a cut, or of an old backup. Nobody may
// have files open. The file is used up unless keep is set.
func (d *Disk) Put(image string, keep bool) error {
	if err := d.Unmount(); err != nil {
		return err
	}
	if keep {
		if err := run("cp", "--sparse=always", image, d.image); err != nil {
			return err
		}
	} else if err := os.Rename(image, d.image); err != nil {
		return fmt.Errorf("put disk in: %w", err)
	}
	return d.mount()
}

// device is the loop device's name.
func (d *Disk) device() (string, error) {
	out, err := exec.Command("losetup", "-n", "-O", "NAME", "-j", d.image).Output()
	if err != nil {
		return "", fmt.Errorf("find loop device: %w", err)
	}
	name := filepath.Base(strings.TrimSpace(string(out)))
	if !strings.HasPrefix(name, "loop") {
		return "", fmt.Errorf("find loop device of %s: losetup says %q", d.image, out)
	}
	return name, nil
}

func (d *Disk) stat() (string, error) {
	name, err := d.device()
	return filepath.Join("/sys/block", name, "stat"), err
}

// writes counts the writes that a block device has completed and those under way.
func writes(stat string) (n [2]uint64, err error) {
	b, err := os.ReadFile(stat)
	if err != nil {
		return n, fmt.Errorf("read device statistics: %w", err)
	}
	f := strings.Fields(string(b))
	if len(f) < 9 {
		return n, fmt.Errorf("%s: %q", stat, b)
	}
	for i, at := range []int{4, 8} {
		if n[i], err = strconv.ParseUint(f[at], 10, 64); err != nil {
			return n, fmt.Errorf("%s: %w", stat, err)
		}
	}
	return n, nil
}

func run(program string, args ...string) error {
	if out, err := exec.Command(program, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %v: %w: %s", program, args, err, out)
	}
	return nil
}
