//go:build linux && (amd64 || arm64)

package lockdown

import (
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// machine runs a filter as the kernel would.
type machine struct {
	t  *testing.T
	vm *bpf.VM
}

func newMachine(t *testing.T, r rules) machine {
	t.Helper()
	program, err := assemble(r)
	if err != nil {
		t.Fatal(err)
	}
	raw := make([]bpf.RawInstruction, len(program))
	for i, f := range program {
		raw[i] = bpf.RawInstruction{Op: f.Code, Jt: f.Jt, Jf: f.Jf, K: f.K}
	}
	instructions, ok := bpf.Disassemble(raw)
	if !ok {
		t.Fatal("the program is not valid")
	}
	vm, err := bpf.NewVM(instructions)
	if err != nil {
		t.Fatal(err)
	}
	return machine{t, vm}
}

// decide lays struct seccomp_data out as words; the machine loads big-endian.
func (m machine) decide(arch, call uint32, args [6]uint64) uint32 {
	m.t.Helper()
	data := binary.BigEndian.AppendUint32(nil, call)
	data = binary.BigEndian.AppendUint32(data, arch)
	data = append(data, make([]byte, 8)...)
	for _, a := range args {
		data = binary.BigEndian.AppendUint32(data, uint32(a))
		data = binary.BigEndian.AppendUint32(data, uint32(a>>32))
	}
	action, err := m.vm.Run(data)
	if err != nil {
		m.t.Fatal(err)
	}
	return uint32(action)
}

// oracle is the meaning of rules, said without jumps.
func oracle(r rules, arch, call uint32, args [6]uint64) uint32 {
	if arch != r.arch || r.x32 && call >= x32Bit {
		return retKill
	}
	for _, g := range r.guard {
		if g.call != call {
			continue
		}
		for _, alternative := range g.alternatives {
			if !slices.ContainsFunc(alternative, func(c condition) bool { return args[c.arg]&c.mask != c.want }) {
				return retAllow
			}
		}
		return retPerm
	}
	switch {
	case slices.Contains(r.allow, call):
		return retAllow
	case slices.Contains(r.kill, call):
		return retKill
	case slices.Contains(r.absent, call), call > r.highest:
		return retNosys
	}
	return retPerm
}

func TestFilterMeansItsRules(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for _, profile := range []Profile{Worker, Plugin} {
		r := policy(profile, 1)
		m := newMachine(t, r)
		// Arguments that the conditions look for, and numbers of calls: a filter
		// that mixes up the two lets something through.
		interesting := []uint64{0, 1, 2, 3, unix.AF_INET, unix.AF_INET6, unix.AT_EMPTY_PATH, unix.MSG_FASTOPEN, threadFlags,
			threadFlags | unix.CLONE_SETTLS, threadFlags | unix.CLONE_NEWUSER, 1 << 32, 1<<32 | 1, unix.PROT_EXEC, allBits}
		for call := range uint32(600) {
			for range 200 {
				var args [6]uint64
				for i := range args {
					switch random.IntN(3) {
					case 0:
						args[i] = interesting[random.IntN(len(interesting))]
					case 1:
						args[i] = uint64(random.IntN(600))
					default:
						args[i] = random.Uint64()
					}
				}
				if got, want := m.decide(r.arch, call, args), oracle(r, r.arch, call, args); got != want {
					t.Fatalf("profile %d, call %d %x: %#x, want %#x", profile, call, args, got, want)
				}
			}
		}
	}
}

func TestFilterCases(t *testing.T) {
	worker, plugin := newMachine(t, policy(Worker, 1)), newMachine(t, policy(Plugin, 1))
	type args = [6]uint64
	cases := []struct {
		name           string
		call           uint32
		args           args
		worker, plugin uint32
	}{
		{"unix socket", unix.SYS_SOCKET, args{unix.AF_UNIX, unix.SOCK_STREAM | unix.SOCK_CLOEXEC | unix.SOCK_NONBLOCK}, retPerm, retAllow},
		{"unix datagrams", unix.SYS_SOCKET, args{unix.AF_UNIX, unix.SOCK_DGRAM}, retPerm, retPerm},
		{"unix packets", unix.SYS_SOCKET, args{unix.AF_UNIX, unix.SOCK_SEQPACKET}, retPerm, retPerm},
		{"internet socket", unix.SYS_SOCKET, args{unix.AF_INET, unix.SOCK_STREAM}, retPerm, retPerm},
		{"connect", unix.SYS_CONNECT, args{3}, retPerm, retPerm},
		{"bind", unix.SYS_BIND, args{3}, retPerm, retAllow},
		{"send", unix.SYS_SENDTO, args{3, 1, 1, 0, 0, 0}, retAllow, retAllow},
		{"send to an address", unix.SYS_SENDTO, args{3, 1, 1, 0, 0x7000, 16}, retPerm, retPerm},
		{"send to a high address", unix.SYS_SENDTO, args{3, 1, 1, 0, 1 << 40, 16}, retPerm, retPerm},
		{"fast open", unix.SYS_SENDMSG, args{3, 1, unix.MSG_FASTOPEN | unix.MSG_NOSIGNAL}, retPerm, retPerm},
		{"thread", unix.SYS_CLONE, args{threadFlags | unix.CLONE_SETTLS}, retAllow, retAllow},
		{"process", unix.SYS_CLONE, args{uint64(unix.SIGCHLD)}, retPerm, retPerm},
		{"thread in a user namespace", unix.SYS_CLONE, args{threadFlags | unix.CLONE_NEWUSER}, retPerm, retPerm},
		{"execute by path", unix.SYS_EXECVE, args{}, retKill, retKill},
		{"execute by descriptor", unix.SYS_EXECVEAT, args{4, 1, 1, 1, unix.AT_EMPTY_PATH}, retKill, retAllow},
		{"execute below a directory", unix.SYS_EXECVEAT, args{4, 1, 1, 1, 0}, retKill, retPerm},
		{"signal to itself", unix.SYS_TGKILL, args{1, 5, uint64(unix.SIGURG)}, retAllow, retAllow},
		{"signal to another", unix.SYS_TGKILL, args{2, 5, uint64(unix.SIGURG)}, retPerm, retPerm},
		{"signal to all", unix.SYS_KILL, args{allBits, 9}, retPerm, retPerm},
		{"later call", 4000, args{}, retNosys, retNosys},
		{"clone3", unix.SYS_CLONE3, args{}, retNosys, retNosys},
	}
	for _, c := range cases {
		if got := worker.decide(auditArch, c.call, c.args); got != c.worker {
			t.Errorf("%s by a worker: %#x, want %#x", c.name, got, c.worker)
		}
		if got := plugin.decide(auditArch, c.call, c.args); got != c.plugin {
			t.Errorf("%s by a plugin: %#x, want %#x", c.name, got, c.plugin)
		}
	}
	if got := worker.decide(unix.AUDIT_ARCH_I386, unix.SYS_READ, args{}); got != retKill {
		t.Errorf("a foreign architecture: %#x", got)
	}
	if hasX32 {
		if got := worker.decide(auditArch, x32Bit|unix.SYS_READ, args{}); got != retKill {
			t.Errorf("an x32 call: %#x", got)
		}
	}
}

func TestNoCallHasTwoRules(t *testing.T) {
	for _, profile := range []Profile{Worker, Plugin} {
		r := policy(profile, 1)
		seen := make(map[uint32]bool)
		all := slices.Concat(r.allow, r.absent, r.kill)
		for _, g := range r.guard {
			all = append(all, g.call)
		}
		for _, call := range all {
			if seen[call] {
				t.Errorf("profile %d: call %d has two rules", profile, call)
			}
			seen[call] = true
			if call > r.highest {
				t.Errorf("profile %d: call %d is above the highest known", profile, call)
			}
		}
	}
}

func TestTooManyConditions(t *testing.T) {
	long := guarded{call: 1}
	for range 100 {
		long.alternatives = append(long.alternatives, []condition{null(0)})
	}
	if _, err := assemble(rules{guard: []guarded{long}}); err == nil {
		t.Error("a block that no jump can skip was assembled")
	}
}
