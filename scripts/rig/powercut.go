package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A power cut is a disk that stops taking writes at some instant: the node's
// data is on an ext4 image behind a loop device; every process of the node is
// stopped, the image is copied as the device has it (what only the page cache of
// the mounted file system holds is not in it), everything is killed, and the
// node starts again from the copy.
//
// What it does not show: a disk that lies about its cache, or tears a sector.

// inNamespace says that this process has a mount namespace of its own, so that
// no mount and no loop device can outlive it, however it ends.
const inNamespace = "BULKHEAD_RIG_MOUNTS"

// imageSize of the disk; the file is sparse.
const imageSize = 4 << 30

func runPowerCut(bin string, cuts int, seed uint64) error {
	if why := noPowerCut(); why != "" {
		fmt.Println("chaos: power cuts skipped:", why)
		return nil
	}
	if os.Getenv(inNamespace) == "" {
		return reenter()
	}
	c, err := newChaos(bin, "powercut", seed)
	if err != nil {
		return err
	}
	fmt.Printf("chaos: seed %d, %d power cuts, files in %s\n", seed, cuts, c.b.dir)
	err = c.cuts(cuts)
	c.b.stopPeers()
	if err != nil {
		return fmt.Errorf("%w (kept: %s)", err, c.b.dir)
	}
	c.b.close()
	return nil
}

// noPowerCut says why it cannot be done on this machine.
func noPowerCut() string {
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

// reenter runs this command again in a mount namespace of its own.
func reenter() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(self, os.Args[1:]...)
	cmd.Env = append(os.Environ(), inNamespace+"=1")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Run(); err != nil {
		return errors.New("power cuts: see above")
	}
	return nil
}

func (c *chaos) disk() string  { return filepath.Join(c.b.dir, "disk.img") }
func (c *chaos) mount() string { return filepath.Join(c.b.dir, "disk") }

func (c *chaos) cuts(cuts int) (err error) {
	if err := c.makeDisk(); err != nil {
		return err
	}
	defer func() {
		if uerr := run("umount", c.mount()); err == nil {
			err = uerr
		}
	}()
	// The log of the node stays outside the disk: it is for whoever looks for the cause.
	n, err := newNode(c.b.bin, filepath.Join(c.b.dir, "node"))
	if err != nil {
		return err
	}
	n.data = filepath.Join(c.mount(), "data")
	c.n = n
	if err := c.setUp(); err != nil {
		return err
	}
	defer func() { c.n.stop() }()
	for i := range cuts {
		if err := c.startLoads(); err != nil {
			return err
		}
		time.Sleep(time.Duration(1000+c.rng.IntN(3000)) * time.Millisecond)
		if err := c.cut(); err != nil {
			return fmt.Errorf("cut %d: %w", i+1, err)
		}
		c.stopLoads()
		if err := c.n.start(); err != nil {
			return fmt.Errorf("start after cut %d: %w", i+1, err)
		}
		fmt.Printf("chaos: cut %d of %d\n", i+1, cuts)
		if err := c.verify(); err != nil {
			return fmt.Errorf("after cut %d: %w", i+1, err)
		}
	}
	return nil
}

func (c *chaos) makeDisk() error {
	f, err := os.Create(c.disk())
	if err != nil {
		return err
	}
	if err := errors.Join(f.Truncate(imageSize), f.Close()); err != nil {
		return err
	}
	if err := run("mkfs.ext4", "-q", "-F", c.disk()); err != nil {
		return err
	}
	if err := os.Mkdir(c.mount(), 0o755); err != nil {
		return err
	}
	return run("mount", "-o", "loop", c.disk(), c.mount())
}

// cut takes the power away and brings back the disk as it was at that instant.
func (c *chaos) cut() error {
	stopped, err := freeze(c.n.cmd.Process.Pid)
	if err != nil {
		return err
	}
	after := c.disk() + ".cut"
	cerr := c.copyDisk(after)
	for _, pid := range stopped {
		syscall.Kill(pid, syscall.SIGKILL)
	}
	<-c.n.ended
	if cerr != nil {
		return cerr
	}
	if err := unmount(c.mount()); err != nil {
		return err
	}
	if err := os.Rename(after, c.disk()); err != nil {
		return err
	}
	return run("mount", "-o", "loop", c.disk(), c.mount())
}

// copyDisk copies the image as it is at one instant: the kernel may go on writing
// what the stopped processes left, and a copy with a write in its middle would be
// a disk that no power cut can leave. So it copies until nothing was written
// meanwhile.
func (c *chaos) copyDisk(to string) error {
	out, err := exec.Command("losetup", "-n", "-O", "NAME", "-j", c.disk()).Output()
	if err != nil {
		return fmt.Errorf("find loop device: %w", err)
	}
	stat := filepath.Join("/sys/block", filepath.Base(strings.TrimSpace(string(out))), "stat")
	for range 50 {
		before, err := writes(stat)
		if err != nil {
			return err
		}
		if err := run("cp", "--sparse=always", c.disk(), to); err != nil {
			return err
		}
		if after, err := writes(stat); err == nil && after == before {
			return nil
		}
	}
	return errors.New("the disk is never still")
}

// writes counts the writes that a block device has completed and those under way.
func writes(stat string) (n [2]uint64, err error) {
	b, err := os.ReadFile(stat)
	if err != nil {
		return n, err
	}
	f := strings.Fields(string(b))
	if len(f) < 9 {
		return n, fmt.Errorf("%s: %q", stat, b)
	}
	for i, at := range []int{4, 8} {
		if n[i], err = strconv.ParseUint(f[at], 10, 64); err != nil {
			return n, err
		}
	}
	return n, nil
}

// freeze stops a process and all its descendants, those included that were
// started while it did.
func freeze(pid int) ([]int, error) {
	seen := map[int]bool{}
	var stopped []int
	for range 100 {
		fresh := false
		for _, p := range family(pid) {
			if seen[p] {
				continue
			}
			if err := syscall.Kill(p, syscall.SIGSTOP); err != nil && err != syscall.ESRCH {
				return stopped, fmt.Errorf("stop process %d: %w", p, err)
			}
			seen[p], fresh = true, true
			stopped = append(stopped, p)
		}
		if !fresh {
			return stopped, nil
		}
	}
	return stopped, errors.New("the node starts processes faster than they can be stopped")
}

// unmount waits for the last killed process to let go.
func unmount(dir string) error {
	var err error
	for range 100 {
		if err = run("umount", dir); err == nil {
			return nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	return err
}

func run(program string, args ...string) error {
	if out, err := exec.Command(program, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %v: %w: %s", program, args, err, out)
	}
	return nil
}
