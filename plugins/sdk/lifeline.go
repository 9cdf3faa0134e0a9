package sdk

import (
	"os"
	"syscall"
)

// endWithWorker ends the process when nobody holds the other end of its stdout
// any more: go-plugin lets a plugin outlive a killed host for ever. The wait costs
// no thread; it uses the runtime's poller, so it needs no system call that a
// sandbox could deny. Where stdout is no pipe nothing is watched.
func endWithWorker() {
	fd, err := syscall.Dup(int(os.Stdout.Fd()))
	if err != nil {
		return
	}
	syscall.CloseOnExec(fd)
	if err := syscall.SetNonblock(fd, true); err != nil {
		return
	}
	f := os.NewFile(uintptr(fd), "stdout")
	conn, err := f.SyscallConn()
	if err != nil {
		return
	}
	go func() { // lives as long as the process
		asked := false
		// The first answer arms the poller; a pipe's writing end becomes
		// readable only by the error that its reader is gone.
		err := conn.Read(func(uintptr) bool { done := asked; asked = true; return done })
		if err == nil {
			os.Exit(0)
		}
	}()
}
