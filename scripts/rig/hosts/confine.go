package hosts

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// stage tells a process of the campaign how far inside it is.
const stage = "BULKHEAD_RIG_STAGE"

// netnsDir is where iproute2 keeps its namespaces by name.
const netnsDir = "/run/netns"

// Missing answers why hosts cannot be made here, "" when they can.
func Missing() string {
	if os.Geteuid() != 0 {
		return "not root"
	}
	for _, tool := range []string{"ip", "nft", "mount"} {
		if _, err := exec.LookPath(tool); err != nil {
			return "no " + tool
		}
	}
	cmd := exec.Command("true")
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWPID}
	if err := cmd.Run(); err != nil {
		return fmt.Sprintf("no namespaces: %v", err)
	}
	return ""
}

// Confined reports whether this process is inside. Run by Confine, it must call
// Enter first.
func Confined() bool { return os.Getenv(stage) != "" }

// Confine runs this command line again, inside, and returns when it has ended. On
// an interrupt it is killed with everything in it.
func Confine(args ...string) error {
	_, err := os.Stat(netnsDir)
	fresh := errors.Is(err, os.ErrNotExist)
	if err := os.MkdirAll(netnsDir, 0o755); err != nil {
		return fmt.Errorf("make %s: %w", netnsDir, err)
	}
	if fresh {
		defer os.Remove(netnsDir) // fails when somebody else uses it by now
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	cmd := exec.Command(self, args...)
	cmd.Env = append(os.Environ(), stage+"=first")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS,
		Pdeathsig:  syscall.SIGKILL,
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start in namespaces: %w", err)
	}
	return cmd.Wait()
}

// Enter makes the place ready and comes back in a child of the first process,
// which only collects the dead from then on; it does not return there. The child
// is in no network but, after up, in the named host's.
func Enter(up func() (host string, err error)) error {
	if os.Getenv(stage) != "first" {
		return nil
	}
	for _, m := range [][]string{
		{"--make-rprivate", "/"},
		{"-t", "proc", "proc", "/proc"},
		{"-t", "tmpfs", "tmpfs", netnsDir},
	} {
		if err := run("", "mount", m...); err != nil {
			return err
		}
	}
	host, err := up()
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	cmd := Launch{Host: host}.Command(self, os.Args[1:]...)
	cmd.Env = append(os.Environ(), stage+"=second")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start in host %s: %w", host, err)
	}
	os.Exit(collect(cmd.Process.Pid))
	return nil
}

// collect waits for processes, orphans included, until the one named has ended.
func collect(pid int) int {
	signal.Ignore(os.Interrupt, syscall.SIGTERM) // they reach the child too
	for {
		var status syscall.WaitStatus
		got, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			return 1
		case got == pid && status.Exited():
			return status.ExitStatus()
		case got == pid:
			return 1
		}
	}
}
