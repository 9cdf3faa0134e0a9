package hosts

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Launch says where a program runs.
type Launch struct {
	Host  string        // network namespace; "" = this one
	Ahead time.Duration // how much longer the host has been up than this machine: its boot time and monotonic clocks are ahead
}

// Verb is the argument that makes this program obey a Launch; main must hand the
// rest to Exec.
const Verb = "launch"

// Command is program on the host. It dies with this process.
func (l Launch) Command(program string, args ...string) *exec.Cmd {
	self, err := os.Executable()
	if err != nil {
		self = "/proc/self/exe"
	}
	own := []string{Verb, l.Host, strconv.FormatInt(int64(l.Ahead/time.Second), 10), program}
	cmd := exec.Command(self, append(own, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// Exec becomes the program on the host. It returns only on an error.
func Exec(args []string) error {
	if len(args) < 3 {
		return fmt.Errorf("launch: want HOST SECONDS PROGRAM")
	}
	runtime.LockOSThread() // namespaces are a thread's; the program inherits this one's
	if args[0] != "" {
		if err := join(args[0]); err != nil {
			return err
		}
	}
	ahead, err := strconv.ParseInt(args[1], 10, 64)
	if err != nil {
		return fmt.Errorf("launch: %q seconds: %w", args[1], err)
	}
	if ahead > 0 {
		if err := setAhead(ahead); err != nil {
			return err
		}
	}
	path, err := exec.LookPath(args[2])
	if err != nil {
		return err
	}
	return syscall.Exec(path, args[2:], os.Environ())
}

func join(host string) error {
	f, err := os.Open(filepath.Join(netnsDir, host))
	if err != nil {
		return fmt.Errorf("open host: %w", err)
	}
	defer f.Close()
	if err := unix.Setns(int(f.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter host %s: %w", host, err)
	}
	return nil
}

// setAhead gives the program a time namespace; it is entered with the exec.
func setAhead(seconds int64) error {
	if err := unix.Unshare(unix.CLONE_NEWTIME); err != nil {
		return fmt.Errorf("make time namespace: %w", err)
	}
	offsets := fmt.Sprintf("monotonic %d 0\nboottime %d 0\n", seconds, seconds)
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/timens_offsets", unix.Gettid()), []byte(offsets), 0); err != nil {
		return fmt.Errorf("set clocks: %w", err)
	}
	return nil
}

// run runs a tool with a text on its standard input.
func run(stdin, program string, args ...string) error {
	cmd := exec.Command(program, args...)
	cmd.Stdin = strings.NewReader(stdin)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", program, strings.Join(args, " "), err, out)
	}
	return nil
}
