package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/bulkhead-ai/bulkhead/scripts/rig/disk"
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
	if why := disk.Missing(); why != "" {
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

func (c *chaos) cuts(cuts int) (err error) {
	d, err := disk.Make(filepath.Join(c.b.dir, "disk.img"), filepath.Join(c.b.dir, "disk"), imageSize)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Unmount()) }()
	// The log of the node stays outside the disk: it is for whoever looks for the cause.
	n, err := newNode(c.b.bin, filepath.Join(c.b.dir, "node"))
	if err != nil {
		return err
	}
	n.data = filepath.Join(d.Dir(), "data")
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
		if err := c.cut(d); err != nil {
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

// cut takes the power away and brings back the disk as it was at that instant.
func (c *chaos) cut(d *disk.Disk) error {
	stopped, err := freeze(c.n.cmd.Process.Pid)
	if err != nil {
		return err
	}
	after := filepath.Join(c.b.dir, "cut.img")
	err = d.Cut(after)
	for _, pid := range stopped {
		syscall.Kill(pid, syscall.SIGKILL)
	}
	<-c.n.ended
	if err != nil {
		return err
	}
	return d.Put(after, false)
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
