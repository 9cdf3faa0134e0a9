package tenants

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/bulkhead-ai/bulkhead"
)

// directories lays out the tenants' files:
//
//	DIR/tenants/NAME            the worker is born here
//	DIR/tenants/NAME/data       the tenant's data, its own uid's alone (made by the spawner)
//	DIR/tenants/NAME/root       the worker's empty root (made by the spawner)
//	DIR/tenants/NAME/unbooked   exists while the journal may hold receipts
//	                            that the ledger has not
//
// Names are valid tenant names, which are safe as file names.
type directories struct {
	base string // DIR/tenants
}

const (
	unbookedName = "unbooked"
	rootName     = "root"
)

func openDirectories(dir string) (*directories, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("tenants' directory: %w", err)
	}
	base := filepath.Join(dir, "tenants")
	if err := makeDir(base, 0o711); err != nil {
		return nil, fmt.Errorf("tenants' directory: %w", err)
	}
	return &directories{base}, nil
}

// prepare makes a tenant's folder, durably. The worker's uid must be able to
// walk through but not to list, hence mode 0711.
func (d *directories) prepare(id bulkhead.TenantID) (string, error) {
	if !bulkhead.ValidName(string(id)) {
		return "", fmt.Errorf("folder of tenant %q: not a name", id)
	}
	dir := filepath.Join(d.base, string(id))
	if err := makeDir(dir, 0o711); err != nil {
		return "", fmt.Errorf("folder of tenant %s: %w", id, err)
	}
	return dir, nil
}

// markUnbooked notes, durably, that the tenant's journal may hold receipts which
// the ledger has not.
func (d *directories) markUnbooked(id bulkhead.TenantID) error {
	path := filepath.Join(d.base, string(id), unbookedName)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("mark %s unbooked: %w", id, err)
	}
	f.Close()
	return syncDir(filepath.Dir(path))
}

// clearUnbooked removes the note. That it comes back after a power cut does no
// harm: the worker is started once for nothing.
func (d *directories) clearUnbooked(id bulkhead.TenantID) error {
	if err := os.Remove(filepath.Join(d.base, string(id), unbookedName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("mark %s booked: %w", id, err)
	}
	return nil
}

// unbooked lists the tenants that have the note.
func (d *directories) unbooked() ([]bulkhead.TenantID, error) {
	notes, err := filepath.Glob(filepath.Join(d.base, "*", unbookedName))
	if err != nil {
		return nil, fmt.Errorf("list unbooked tenants: %w", err)
	}
	var out []bulkhead.TenantID
	for _, note := range notes {
		if name := filepath.Base(filepath.Dir(note)); bulkhead.ValidName(name) {
			out = append(out, bulkhead.TenantID(name))
		}
	}
	return out, nil
}

// makeDir makes one directory with exactly this mode and makes its name durable;
// one that exists is left as it is.
func makeDir(path string, mode fs.FileMode) error {
	if err := os.Mkdir(path, mode); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return nil
		}
		return err
	}
	if err := os.Chmod(path, mode); err != nil { // whatever the umask
		return err
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
