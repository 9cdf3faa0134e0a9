package lockdown

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/bulkhead-ai/bulkhead/worker/control"
)

// bornWith looks at what the process was given at birth, while /proc can still
// be read. One clone call makes all namespaces or none, so those that leave no
// trace of their own are told by the process number, which is 1 only there.
func bornWith(namespaces bool) []control.Layer {
	var layers []control.Layer
	first := os.Getpid() == 1
	uid, mapped, own := hostUID()
	switch {
	case own:
		layers = append(layers, on("uid", strconv.Itoa(uid)))
	default:
		layers = append(layers, off("uid", fmt.Sprintf("%d, shared with the supervisor", uid)))
	}
	names := []struct {
		name string
		on   bool
	}{{"userns", mapped}, {"pid", first}, {"net", first && onlyLoopback()}, {"ipc", first}, {"uts", first}}
	for _, n := range names {
		if namespaces && n.on {
			layers = append(layers, on(n.name, ""))
		} else {
			layers = append(layers, off(n.name, "no namespaces on this host"))
		}
	}
	return append(layers, cgroupLayer())
}

// firstTenantUID is where the uids of tenants begin; the spawner's default.
const firstTenantUID = 700000

// hostUID tells the uid that the host sees, whether it is seen through a map,
// and whether it belongs to a tenant alone.
func hostUID() (uid int, mapped, own bool) {
	uid = os.Getuid()
	if b, err := os.ReadFile("/proc/self/uid_map"); err == nil {
		var inner, outer, count int
		if n, _ := fmt.Sscan(string(b), &inner, &outer, &count); n == 3 && count == 1 {
			uid, mapped = outer, true
		}
	}
	return uid, mapped, uid >= firstTenantUID
}

// onlyLoopback reports whether the network namespace has no interface but lo.
func onlyLoopback() bool {
	b, err := os.ReadFile("/proc/self/net/dev")
	if err != nil {
		return false
	}
	lines := bytes.Split(bytes.TrimSpace(b), []byte("\n"))
	for _, line := range lines[min(2, len(lines)):] { // two lines of headings
		if name, _, _ := strings.Cut(strings.TrimSpace(string(line)), ":"); name != "lo" {
			return false
		}
	}
	return true
}

func cgroupLayer() control.Layer {
	b, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return off("cgroup", err.Error())
	}
	for line := range strings.Lines(string(b)) {
		_, rest, _ := strings.Cut(line, ":")
		controllers, path, _ := strings.Cut(strings.TrimSpace(rest), ":")
		if !strings.Contains(path, "/t/") || (controllers != "" && controllers != "memory") {
			continue
		}
		if controllers == "" {
			return on("cgroup", "v2")
		}
		return on("cgroup", "v1")
	}
	return off("cgroup", "no cgroup of its own")
}
