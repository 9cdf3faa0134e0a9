package lockdown

import "golang.org/x/sys/unix"

const (
	auditArch   = unix.AUDIT_ARCH_AARCH64
	hasX32      = false
	highestCall = 467 // open_tree_attr, Linux 6.15
)

// archCalls are calls whose names differ between architectures.
var archCalls = []uint32{unix.SYS_NEWFSTATAT, unix.SYS_ACCEPT}
