package lockdown

import (
	"fmt"

	"github.com/bulkhead-ai/bulkhead/worker/control"
	"github.com/landlock-lsm/go-landlock/landlock"
	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
)

// What a worker may do with its data: no links, no devices, no sockets, nothing
// to execute.
const workerRights = ll.AccessFSReadFile | ll.AccessFSReadDir | ll.AccessFSWriteFile | ll.AccessFSTruncate |
	ll.AccessFSMakeReg | ll.AccessFSMakeDir | ll.AccessFSRemoveFile | ll.AccessFSRemoveDir | ll.AccessFSRefer

// What a plugin may do in its socket directory.
const pluginRights = ll.AccessFSReadFile | ll.AccessFSReadDir | ll.AccessFSWriteFile |
	ll.AccessFSMakeReg | ll.AccessFSMakeSock | ll.AccessFSRemoveFile

// Everything that Landlock can handle today; an older kernel handles less.
const (
	allFS     = 1<<17 - 1
	allNet    = 1<<4 - 1
	allScopes = 1<<2 - 1
)

// restrictFiles allows dir and nothing else: no other file, no TCP port, no
// signal to and no abstract socket of another process, as far as the kernel's
// Landlock goes. Landlock alone confines neither MPTCP, nor UDP on older
// kernels, nor path sockets: seccomp does.
func restrictFiles(dir string, profile Profile) control.Layer {
	abi, err := ll.LandlockGetABIVersion()
	if err != nil || abi < 1 {
		return off("landlock", "the kernel has none or it is disabled")
	}
	rights := landlock.AccessFSSet(workerRights)
	if profile == Plugin {
		rights = pluginRights
	}
	if abi < 2 {
		// The library gives up altogether when a rule asks for what the kernel
		// does not know; without it files cannot move between directories.
		rights &^= ll.AccessFSRefer
	}
	all, err := landlock.NewConfig(landlock.AccessFSSet(allFS), landlock.AccessNetSet(allNet), landlock.ScopedSet(allScopes))
	if err != nil {
		return off("landlock", err.Error())
	}
	if err := all.BestEffort().Restrict(landlock.PathAccess(rights, dir)); err != nil {
		return off("landlock", err.Error())
	}
	return on("landlock", fmt.Sprintf("ABI %d", abi))
}
