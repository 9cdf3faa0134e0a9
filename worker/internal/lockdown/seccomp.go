//go:build linux && (amd64 || arm64)

package lockdown

import (
	"fmt"
	"os"
	"unsafe"

	"github.com/bulkhead-ai/bulkhead/worker/control"
	"golang.org/x/sys/unix"
)

// filterCalls loads the profile's filter into all threads.
func filterCalls(profile Profile) control.Layer {
	program, err := assemble(policy(profile, os.Getpid()))
	if err != nil {
		return off("seccomp", err.Error())
	}
	prog := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	thread, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER,
		unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&prog)))
	switch {
	case errno != 0:
		return off("seccomp", errno.Error())
	case thread != 0:
		// The call reports a thread that it could not convert by a positive
		// result, without an errno: nothing is filtered then.
		return off("seccomp", fmt.Sprintf("thread %d refused the filter", thread))
	}
	return on("seccomp", fmt.Sprintf("allow-list, %d instructions", len(program)))
}
