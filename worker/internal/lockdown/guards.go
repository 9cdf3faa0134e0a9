//go:build linux && (amd64 || arm64)

package lockdown

import "golang.org/x/sys/unix"

const allBits = 1<<64 - 1

// What clone must ask for to make a thread, and must not to make anything else.
// Go adds flags of its own (CLONE_SETTLS on amd64), so the word is masked.
const (
	threadFlags = unix.CLONE_VM | unix.CLONE_FS | unix.CLONE_FILES | unix.CLONE_SIGHAND | unix.CLONE_THREAD | unix.CLONE_SYSVSEM
	newFlags    = unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWUSER |
		unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_PTRACE | unix.CLONE_VFORK
)

// Linux names that x/sys does not have.
const prSetVMA = 0x53564d41 // prctl: the runtime names its mappings

func equal(arg int, want uint32) condition { return condition{arg, 1<<32 - 1, uint64(want)} }

func masked(arg int, mask, want uint32) condition {
	return condition{arg, uint64(mask), uint64(want)}
}

func null(arg int) condition { return condition{arg, allBits, 0} }

// guardedCalls are allowed to both profiles under conditions.
func guardedCalls(pid int) []guarded {
	self := equal(0, uint32(pid))
	return []guarded{
		// No memory is ever made executable.
		{unix.SYS_MMAP, [][]condition{{masked(2, unix.PROT_EXEC, 0)}}},
		{unix.SYS_MPROTECT, [][]condition{{masked(2, unix.PROT_EXEC, 0)}}},
		{unix.SYS_CLONE, [][]condition{{masked(0, threadFlags|newFlags, threadFlags)}}},
		{unix.SYS_TGKILL, [][]condition{{self}}},
		{unix.SYS_KILL, [][]condition{{self}}},
		{unix.SYS_PRLIMIT64, [][]condition{{equal(0, 0)}}},
		{unix.SYS_RENAMEAT2, [][]condition{{masked(4, unix.RENAME_WHITEOUT, 0)}}},
		{unix.SYS_PRCTL, anyOf(0, unix.PR_SET_NAME, unix.PR_GET_NAME, prSetVMA, unix.PR_GET_DUMPABLE,
			unix.PR_GET_NO_NEW_PRIVS, unix.PR_GET_SECCOMP, unix.PR_CAPBSET_READ)},
		{unix.SYS_FCNTL, anyOf(1, unix.F_DUPFD, unix.F_DUPFD_CLOEXEC, unix.F_GETFD, unix.F_SETFD, unix.F_GETFL, unix.F_SETFL,
			unix.F_GETLK, unix.F_SETLK, unix.F_SETLKW, unix.F_OFD_GETLK, unix.F_OFD_SETLK, unix.F_OFD_SETLKW, unix.F_GET_SEALS)},
		// A connected socket must keep its peer: no address, no fast open.
		{unix.SYS_SENDTO, [][]condition{{null(4), masked(3, unix.MSG_FASTOPEN, 0)}}},
		{unix.SYS_SENDMSG, [][]condition{{masked(2, unix.MSG_FASTOPEN, 0)}}},
		{unix.SYS_SETSOCKOPT, append(
			options(unix.SOL_SOCKET, unix.SO_KEEPALIVE, unix.SO_LINGER, unix.SO_SNDBUF, unix.SO_RCVBUF, unix.SO_REUSEADDR),
			options(unix.IPPROTO_TCP, unix.TCP_NODELAY, unix.TCP_KEEPIDLE, unix.TCP_KEEPINTVL, unix.TCP_KEEPCNT,
				unix.TCP_USER_TIMEOUT, unix.TCP_NOTSENT_LOWAT)...)},
	}
}

// anyOf is one alternative for each value of the argument.
func anyOf(arg int, values ...uint32) [][]condition {
	var all [][]condition
	for _, v := range values {
		all = append(all, []condition{equal(arg, v)})
	}
	return all
}

// options is one alternative for each socket option of a level.
func options(level uint32, names ...uint32) [][]condition {
	var all [][]condition
	for _, name := range names {
		all = append(all, []condition{equal(1, level), equal(2, name)})
	}
	return all
}
