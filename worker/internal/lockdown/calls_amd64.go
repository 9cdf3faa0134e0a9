package lockdown

import "golang.org/x/sys/unix"

const (
	auditArch   = unix.AUDIT_ARCH_X86_64
	hasX32      = true
	highestCall = 467 // open_tree_attr, Linux 6.15
)

// archCalls are older names of calls that commonCalls has, and what the start
// of a program needs on this architecture.
var archCalls = []uint32{
	unix.SYS_NEWFSTATAT, unix.SYS_ARCH_PRCTL, unix.SYS_EPOLL_WAIT, unix.SYS_EPOLL_CREATE, unix.SYS_EVENTFD, unix.SYS_POLL, unix.SYS_SELECT,
	unix.SYS_OPEN, unix.SYS_STAT, unix.SYS_LSTAT, unix.SYS_ACCESS, unix.SYS_READLINK, unix.SYS_UNLINK, unix.SYS_RMDIR,
	unix.SYS_MKDIR, unix.SYS_RENAME, unix.SYS_CHMOD, unix.SYS_DUP2, unix.SYS_PIPE, unix.SYS_GETDENTS, unix.SYS_ACCEPT,
}
