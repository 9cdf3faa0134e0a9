package lockdown

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"github.com/bulkhead-ai/bulkhead/worker/control"
	"golang.org/x/sys/unix"
)

// BecomePlugin is the whole life of a worker binary that was started with
// control.PluginVerb: it reads its orders from control.FDPluginStart, locks
// itself down and executes the file on control.FDPluginBinary. It returns only
// with an error, and the process must end then.
func BecomePlugin() error {
	// The thread that executes the file is the one whose bounding set is empty.
	runtime.LockOSThread()
	unix.CloseOnExec(control.FDPluginStart)
	unix.CloseOnExec(control.FDPluginBinary)
	start, err := readPluginStart()
	if err != nil {
		return fmt.Errorf("read the start message: %w", err)
	}
	dropBounding()
	if _, err := Apply(start.Sandbox, Plugin); err != nil {
		return fmt.Errorf("lock down: %w", err)
	}
	argv := []string{"bulkhead-provider-" + start.Name, "tenant=" + start.Tenant}
	if err := execute(control.FDPluginBinary, argv, start.Env); err != nil {
		return fmt.Errorf("execute the plugin: %w", err)
	}
	return nil
}

func readPluginStart() (control.PluginStart, error) {
	var start control.PluginStart
	f := os.NewFile(control.FDPluginStart, "start")
	if f == nil {
		return start, errors.New("no descriptor 3")
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, control.MaxPluginStart+1))
	if err != nil {
		return start, err
	}
	if len(b) > control.MaxPluginStart {
		return start, fmt.Errorf("longer than %d bytes", control.MaxPluginStart)
	}
	return start, json.Unmarshal(b, &start)
}

// execute replaces the program by the file open on fd, which has no path.
func execute(fd int, argv, env []string) error {
	args, err := syscall.SlicePtrFromStrings(argv)
	if err != nil {
		return fmt.Errorf("arguments: %w", err)
	}
	vars, err := syscall.SlicePtrFromStrings(env)
	if err != nil {
		return fmt.Errorf("environment: %w", err)
	}
	empty := [1]byte{}
	_, _, errno := unix.Syscall6(unix.SYS_EXECVEAT, uintptr(fd), uintptr(unsafe.Pointer(&empty[0])),
		uintptr(unsafe.Pointer(&args[0])), uintptr(unsafe.Pointer(&vars[0])), unix.AT_EMPTY_PATH, 0)
	return errno
}
