package lockdown

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// enterRoot makes the empty directory ./root the root of the mount namespace,
// read-only, with dir mounted at /name as the only place to write. Paths are
// relative: the process may have no right to walk to its folder from the old
// root, but it was born standing in it.
func enterRoot(dir, name string) error {
	if dir == "" {
		dir = name
	}
	target := rootDir + "/" + name
	const hard = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	steps := []struct {
		what string
		do   func() error
	}{
		{"make mounts private", func() error { return unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "") }},
		{"bind the root", func() error { return unix.Mount(rootDir, rootDir, "", unix.MS_BIND, "") }},
		{"bind " + name, func() error { return unix.Mount(dir, target, "", unix.MS_BIND, "") }},
		{"harden " + name, func() error { return unix.Mount("", target, "", unix.MS_REMOUNT|unix.MS_BIND|hard, "") }},
		{"enter the root", func() error { return unix.Chdir(rootDir) }},
		{"harden the root", func() error {
			return unix.Mount("", ".", "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|hard, "")
		}},
		{"pivot", func() error { return unix.PivotRoot(".", ".") }},
		// The old root now lies over the new one: take it off.
		{"leave the old root", func() error { return unix.Unmount(".", unix.MNT_DETACH) }},
		{"stand in the root", func() error { return unix.Chdir("/") }},
	}
	for _, step := range steps {
		if err := step.do(); err != nil {
			return fmt.Errorf("%s: %w", step.what, err)
		}
	}
	return nil
}
