package lockdown

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Offsets into struct seccomp_data on little-endian machines, the only ones
// for which there is a table.
const (
	offNumber = 0
	offArch   = 4
	offArgs   = 16
)

// condition holds when the argument, masked, equals want. High halves are
// looked at only where the mask reaches there: int arguments have garbage
// rights above 32 bits, which the kernel ignores too.
type condition struct {
	arg        int
	mask, want uint64
}

// guarded is a call that is allowed only when all conditions of one of its
// alternatives hold.
type guarded struct {
	call         uint32
	alternatives [][]condition
}

// rules is a whole filter. A call in none of the lists is refused with EPERM,
// one above highest, unknown when the list was made, with ENOSYS.
type rules struct {
	arch    uint32
	x32     bool // refuse the x32 numbers, which share the architecture's mark
	highest uint32
	allow   []uint32
	guard   []guarded
	absent  []uint32 // ENOSYS: callers fall back to an older call
	kill    []uint32
}

const (
	retAllow = unix.SECCOMP_RET_ALLOW
	retKill  = unix.SECCOMP_RET_KILL_PROCESS
	retPerm  = unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)
	retNosys = unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)
	x32Bit   = 0x40000000
	maxLen   = 4096 // the kernel's limit of instructions
)

// assemble turns rules into a program. Where a block of conditions has loaded
// an argument, it always ends in a return: nothing after it can mistake the
// argument for the number of the call.
func assemble(r rules) ([]unix.SockFilter, error) {
	p := []unix.SockFilter{
		load(offArch), jumpEqual(r.arch, 1, 0), ret(retKill),
		load(offNumber),
	}
	if r.x32 {
		p = append(p, jumpAtLeast(x32Bit, 0, 1), ret(retKill))
	}
	for _, g := range r.guard {
		block, err := g.block()
		if err != nil {
			return nil, err
		}
		p = append(p, block...)
	}
	for _, list := range []struct {
		calls  []uint32
		action uint32
	}{{r.allow, retAllow}, {r.kill, retKill}, {r.absent, retNosys}} {
		for _, call := range list.calls {
			p = append(p, jumpEqual(call, 0, 1), ret(list.action))
		}
	}
	p = append(p, jumpAtLeast(r.highest+1, 0, 1), ret(retNosys), ret(retPerm))
	if len(p) > maxLen {
		return nil, fmt.Errorf("filter has %d instructions, the kernel takes %d", len(p), maxLen)
	}
	return p, nil
}

// block is the code of one guarded call: skipped as a whole by other calls.
func (g guarded) block() ([]unix.SockFilter, error) {
	var body []unix.SockFilter
	for _, alternative := range g.alternatives {
		body = append(body, alternativeCode(alternative)...)
	}
	body = append(body, ret(retPerm))
	if len(body) > 255 {
		return nil, fmt.Errorf("conditions of call %d need %d instructions, a jump reaches 255", g.call, len(body))
	}
	return append([]unix.SockFilter{jumpEqual(g.call, 0, uint8(len(body)))}, body...), nil
}

// alternativeCode allows when all conditions hold and falls through behind its
// end when one does not.
func alternativeCode(all []condition) []unix.SockFilter {
	var code []unix.SockFilter
	var tests []int // positions whose false branch leads to the end
	for _, c := range all {
		for half := range 2 {
			mask, want := uint32(c.mask>>(32*half)), uint32(c.want>>(32*half))
			if mask == 0 {
				continue
			}
			code = append(code, load(uint32(offArgs+8*c.arg+4*half)))
			if mask != 1<<32-1 {
				code = append(code, and(mask))
			}
			tests = append(tests, len(code))
			code = append(code, jumpEqual(want, 0, 0))
		}
	}
	code = append(code, ret(retAllow))
	for _, at := range tests {
		code[at].Jf = uint8(len(code) - at - 1)
	}
	return code
}

func load(offset uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}
}

func and(mask uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: mask}
}

func jumpEqual(k uint32, yes, no uint8) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: yes, Jf: no, K: k}
}

func jumpAtLeast(k uint32, yes, no uint8) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K, Jt: yes, Jf: no, K: k}
}

func ret(action uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: action}
}
