package lockdown

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/bulkhead-ai/bulkhead/worker/control"
	"golang.org/x/sys/unix"
)

// Profile says what the process is going to be.
type Profile int

// The profiles.
const (
	// Worker keeps a tenant's data directory and the sockets it was handed; it
	// can create no socket and execute nothing.
	Worker Profile = iota
	// Plugin has one writable directory for its unix socket, in which it can
	// make no file with content; it can listen on unix sockets, connect to
	// nothing and execute one sealed file that it already holds.
	Plugin
)

// ErrMissingLayer is wrapped by the error that names a required layer that is
// not on.
var ErrMissingLayer = errors.New("required sandbox layer is missing")

// The layout below the working directory that the spawner gives to a process
// with namespaces: an empty root with one mount point, and the directory that
// is mounted there.
const (
	rootDir       = "root"
	workerMount   = "data"
	pluginMount   = "run"
	commWorker    = "bulkhead-worker" // exactly the 15 bytes that a thread name may have
	defaultMemory = 1 << 30
	defaultFile   = 256 << 20
)

// DataPath is the path of the only writable directory after Apply: /data (a
// worker) or /run (a plugin) in own namespaces, cfg.DataDir as it was without.
func DataPath(cfg control.Sandbox, profile Profile) string {
	if cfg.Namespaces {
		return "/" + mountName(profile)
	}
	if cfg.DataDir == "" {
		return mountName(profile)
	}
	return cfg.DataDir
}

func mountName(profile Profile) string {
	if profile == Plugin {
		return pluginMount
	}
	return workerMount
}

// Apply locks the process down. It is called once, before the process has any
// data of a tenant, and cannot be undone; after an error the process must end.
// The layers are returned with an error too, as far as they were tried. With
// namespaces the working directory must be the process's own folder (see
// package spawn); it is / afterwards.
func Apply(cfg control.Sandbox, profile Profile) ([]control.Layer, error) {
	layers := bornWith(cfg.Namespaces)
	if profile == Worker {
		nameProcess(commWorker)
	}
	if cfg.Namespaces {
		err := enterRoot(cfg.DataDir, mountName(profile))
		if err != nil {
			return layers, fmt.Errorf("enter the empty root: %w", err)
		}
		layers = append(layers, on("mount", "empty read-only root"))
	} else {
		layers = append(layers, off("mount", "no namespaces on this host"))
	}
	rest, err := shed(cfg, profile)
	layers = append(layers, rest...)
	if err != nil {
		return layers, err
	}
	if err := selfTest(DataPath(cfg, profile), profile, layers); err != nil {
		return layers, fmt.Errorf("self-test of the sandbox: %w", err)
	}
	return layers, require(cfg.Require, layers)
}

// shed gives up rights in the one order that works: each step needs what the
// next one takes, and after Landlock signals between threads may be refused on
// older kernels, which changes of credentials on all threads depend on.
func shed(cfg control.Sandbox, profile Profile) ([]control.Layer, error) {
	var layers []control.Layer
	if err := limitResources(cfg, profile); err != nil {
		return layers, fmt.Errorf("limit resources: %w", err)
	}
	layers = append(layers, on("rlimits", ""))
	if err := dropCapabilities(); err != nil {
		return layers, fmt.Errorf("drop capabilities: %w", err)
	}
	layers = append(layers, on("capabilities", "none left"))
	if err := noNewPrivileges(); err != nil {
		return layers, fmt.Errorf("forbid new privileges: %w", err)
	}
	layers = append(layers, on("no_new_privs", ""))

	if cfg.Landlock {
		layers = append(layers, restrictFiles(DataPath(cfg, profile), profile))
	} else {
		layers = append(layers, off("landlock", "not configured"))
	}
	if cfg.Seccomp {
		layers = append(layers, filterCalls(profile))
	} else {
		layers = append(layers, off("seccomp", "not configured"))
	}
	return layers, nil
}

// nameProcess makes the process known by name to tools that do not read its
// arguments. The file belongs to the main thread, whichever thread writes it.
func nameProcess(comm string) {
	if os.WriteFile("/proc/self/comm", []byte(comm), 0) != nil {
		_ = unix.Prctl(unix.PR_SET_NAME, uintptrOf(comm), 0, 0, 0)
	}
}

func require(names []string, layers []control.Layer) error {
	for _, name := range names {
		i := slices.IndexFunc(layers, func(l control.Layer) bool { return l.Name == name })
		if i < 0 {
			return fmt.Errorf("%w: %s: no such layer", ErrMissingLayer, name)
		}
		if !layers[i].On {
			return fmt.Errorf("%w: %s: %s", ErrMissingLayer, name, layers[i].Detail)
		}
	}
	return nil
}

func on(name, detail string) control.Layer {
	return control.Layer{Name: name, On: true, Detail: detail}
}

func off(name, why string) control.Layer { return control.Layer{Name: name, Detail: why} }

func isOn(layers []control.Layer, name string) bool {
	return slices.ContainsFunc(layers, func(l control.Layer) bool { return l.Name == name && l.On })
}
