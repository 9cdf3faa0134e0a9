package configs

import (
	"fmt"
	"slices"
)

// Mode says which layers of the sandbox a node insists on.
type Mode string

// The modes.
const (
	Strict     Mode = "strict"      // every layer; needs root
	Standard   Mode = "standard"    // every layer that a node without root can have
	BestEffort Mode = "best-effort" // what there is; the log lists what is missing
)

// UnmarshalText reads a mode.
func (m *Mode) UnmarshalText(b []byte) error {
	switch v := Mode(b); v {
	case Strict, Standard, BestEffort:
		*m = v
		return nil
	}
	return fmt.Errorf("%.40q is no mode; one of strict, standard, best-effort", b)
}

// Layers are the names of all layers of the sandbox, as doctor prints them.
func Layers() []string {
	return []string{
		"uid", "userns", "mount", "pid", "net", "ipc", "uts",
		"capabilities", "no_new_privs", "landlock", "seccomp", "rlimits", "cgroup",
	}
}

// Required are the layers without which the node refuses to start, in the order
// of Layers.
func (i Isolation) Required() []string {
	var out []string
	for _, layer := range Layers() {
		if i.Mode == Strict || i.Mode == Standard && !needsRoot(layer) || slices.Contains(i.Require, layer) {
			out = append(out, layer)
		}
	}
	return out
}

// needsRoot reports which layers only root can have: a uid per tenant, and a
// cgroup unless somebody delegated one.
func needsRoot(layer string) bool { return layer == "uid" || layer == "cgroup" }
