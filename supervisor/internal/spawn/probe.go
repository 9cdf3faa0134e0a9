package spawn

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/bulkhead-ai/bulkhead/worker/control"
	"golang.org/x/sys/unix"
)

// probeArg makes the spawner's binary try a sandbox on itself and end.
const probeArg = "probe"

// host is what this host gives to children.
type host struct {
	ownUIDs    bool   // tenants have uids of their own
	namespaces bool   // user namespace and all others
	why        string // why there are none
}

// probe finds out by trying: what a kernel allows depends on settings, security
// modules and containers in ways that no file tells.
func (s *server) probe(r initRequest) host {
	root := os.Geteuid() == 0
	h := host{ownUIDs: root, namespaces: true}
	if r.NoNamespaces {
		h.why = "not configured"
	} else {
		err := s.try(h, r.ScratchDir)
		if err == nil {
			return h
		}
		h.why = err.Error()
		if root { // perhaps root of a container that has no such uids
			shared := host{namespaces: true}
			if s.try(shared, r.ScratchDir) == nil {
				return shared
			}
		}
	}
	h.namespaces = false
	if root && s.try(h, r.ScratchDir) != nil {
		h.ownUIDs = false
	}
	return h
}

// try bears a child in the way of h that does what a worker's lock-down does.
func (s *server) try(h host, scratch string) error {
	dir, err := os.MkdirTemp(scratch, "bulkhead-probe-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := h.prepareWorkerDir(dir, 0); err != nil {
		return err
	}
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		return err
	}
	defer self.Close()
	read, write, err := os.Pipe()
	if err != nil {
		return err
	}
	defer read.Close()
	p, err := s.forkHere(h, birth{
		binary: self, dir: dir, group: group{},
		argv:  []string{"bulkhead-spawner", Verb, fmt.Sprint(h.namespaces), probeArg},
		env:   []string{runtimeEnv},
		files: []*os.File{s.null, s.null, write},
	})
	write.Close()
	if err != nil {
		return fmt.Errorf("clone: %w", err)
	}
	var said bytes.Buffer
	_, _ = said.ReadFrom(read)
	state, err := p.Wait()
	if err != nil {
		return err
	}
	if !state.Success() {
		return errors.New(strings.TrimSpace(strings.TrimPrefix(said.String(), "bulkhead-spawner:")))
	}
	return nil
}

// forkHere forks on the forking thread and waits for it.
func (s *server) forkHere(h host, b birth) (p *os.Process, err error) {
	done := make(chan struct{})
	s.forks <- func() {
		p, err = h.fork(b)
		close(done)
	}
	<-done
	return p, err
}

// probeInside is the child's half of try.
func probeInside() error {
	if len(os.Args) < 2 || os.Args[len(os.Args)-2] != "true" {
		return nil // no namespaces: being alive with the right uid was the question
	}
	for _, step := range []struct {
		what string
		do   func() error
	}{
		{"make mounts private", func() error { return unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "") }},
		{"bind a directory", func() error { return unix.Mount(rootName, rootName, "", unix.MS_BIND, "") }},
		{"bind another", func() error { return unix.Mount(dataName, rootName+"/"+dataName, "", unix.MS_BIND, "") }},
		{"enter it", func() error { return unix.Chdir(rootName) }},
		{"make it read-only", func() error {
			const flags = unix.MS_REMOUNT | unix.MS_BIND | unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
			return unix.Mount("", ".", "", flags, "")
		}},
		{"make it the root", func() error { return unix.PivotRoot(".", ".") }},
		{"leave the old root", func() error { return unix.Unmount(".", unix.MNT_DETACH) }},
	} {
		if err := step.do(); err != nil {
			return fmt.Errorf("%s: %w", step.what, err)
		}
	}
	return nil
}

// layers reports what h gives, and what a child will be able to add itself.
func (h host) layers() []control.Layer {
	layers := []control.Layer{{Name: "uid", On: h.ownUIDs, Detail: fmt.Sprintf("%d + slot", BaseUID)}}
	if !h.ownUIDs {
		layers[0].Detail = "not root: tenants share the supervisor's uid"
	}
	for _, name := range []string{"userns", "mount", "pid", "net", "ipc", "uts"} {
		l := control.Layer{Name: name, On: h.namespaces}
		if !h.namespaces {
			l.Detail = h.why
		}
		layers = append(layers, l)
	}
	return append(layers,
		control.Layer{Name: "capabilities", On: true},
		control.Layer{Name: "no_new_privs", On: true},
		landlockLayer(), seccompLayer(),
		control.Layer{Name: "rlimits", On: true},
	)
}

func landlockLayer() control.Layer {
	const versionFlag = 1 // LANDLOCK_CREATE_RULESET_VERSION
	abi, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, versionFlag)
	if errno != 0 {
		return control.Layer{Name: "landlock", Detail: errno.Error()}
	}
	return control.Layer{Name: "landlock", On: true, Detail: fmt.Sprintf("ABI %d", abi)}
}

func seccompLayer() control.Layer {
	action := uint32(unix.SECCOMP_RET_KILL_PROCESS)
	if err := actionAvailable(&action); err != nil {
		return control.Layer{Name: "seccomp", Detail: err.Error()}
	}
	return control.Layer{Name: "seccomp", On: true}
}
