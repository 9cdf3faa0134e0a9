package spawn

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// The layout of a tenant's folder. The tenant's uid may pass through the folder
// and owns what is mounted for it; nobody else reaches it, because the folder
// above belongs to the supervisor alone.
const (
	rootName    = "root" // becomes the process's root: empty but for a mount point
	dataName    = "data" // the worker's data
	pluginsName = "plugins"
	runName     = "run" // a plugin's sockets
)

// prepareWorkerDir makes what is missing in the tenant's folder.
func (h host) prepareWorkerDir(dir string, slot uint32) error {
	if !filepath.IsAbs(dir) {
		return errors.New("not an absolute path")
	}
	r, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer r.Close()
	// Plugins end with their worker: what lies here is of an earlier life.
	if err := r.RemoveAll(pluginsName); err != nil {
		return err
	}
	return h.layOut(r, dataName, slot)
}

// layOut makes root/NAME, the mount point, and NAME, owned by the tenant.
func (h host) layOut(r *os.Root, name string, slot uint32) error {
	if h.ownUIDs {
		if err := r.Chmod(".", 0o711); err != nil {
			return err
		}
	}
	for _, d := range []struct {
		path string
		mode fs.FileMode
	}{{rootName, 0o755}, {rootName + "/" + name, 0o755}, {name, 0o700}} {
		if err := r.Mkdir(d.path, d.mode); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	if !h.ownUIDs {
		return nil
	}
	uid, gid := h.ids(slot)
	info, err := r.Lstat(name)
	if err != nil {
		return err
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && int(st.Uid) == uid && int(st.Gid) == gid {
		return nil
	}
	// Made just now, or by a supervisor that was not root then.
	return fs.WalkDir(r.FS(), name, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return r.Lchown(path, uid, gid)
	})
}

// preparePluginDir makes a folder for one plugin process and returns its path.
func (h host) preparePluginDir(dir, name string, slot uint32) (string, error) {
	r, err := os.OpenRoot(dir)
	if err != nil {
		return "", err
	}
	defer r.Close()
	path := pluginsName + "/" + name
	if err := r.MkdirAll(path, 0o711); err != nil {
		return "", err
	}
	own, err := r.OpenRoot(path)
	if err != nil {
		return "", err
	}
	defer own.Close()
	return filepath.Join(dir, path), h.layOut(own, runName, slot)
}

// removePluginDir removes it, whatever the plugin left there.
func removePluginDir(dir, name string) {
	r, err := os.OpenRoot(dir)
	if err != nil {
		return
	}
	defer r.Close()
	_ = r.RemoveAll(pluginsName + "/" + name)
}
