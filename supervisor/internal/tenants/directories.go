package tenants

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/worker/durable"
)

// directories lays out the tenants' files:
//
//	DIR/tenants/NAME            the worker is born here
//	DIR/tenants/NAME/data       the tenant's data, its own uid's alone (made by the spawner)
//	DIR/tenants/NAME/root       the worker's empty root (made by the spawner)
//	DIR/tenants/NAME/slot       whose data it is: a deleted tenant's slot is never
//	                            given again, its name may be
//	DIR/tenants/NAME/epoch      the last one begun here; a hint
//	DIR/tenants/NAME/unbooked   exists while the journal may hold receipts
//	                            that the ledger has not
//	DIR/tenants/.erased-NAME    what is left of NAME while it is being removed
//
// Names are valid tenant names, which are safe as file names.
type directories struct {
	base string // DIR/tenants
}

const (
	unbookedName = "unbooked"
	slotName     = "slot"
	epochName    = "epoch"
	dataName     = "data"
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
// walk through but not to list, hence mode 0711. What an earlier tenant of the
// name left is removed: its data key is gone, so nobody can read it.
func (d *directories) prepare(id bulkhead.TenantID, slot uint32) (string, error) {
	if !bulkhead.ValidName(string(id)) {
		return "", fmt.Errorf("folder of tenant %q: not a name", id)
	}
	dir := filepath.Join(d.base, string(id))
	if err := makeDir(dir, 0o711); err != nil {
		return "", fmt.Errorf("folder of tenant %s: %w", id, err)
	}
	if err := claimDir(dir, slot); err != nil {
		return "", fmt.Errorf("folder of tenant %s: %w", id, err)
	}
	return dir, nil
}

// claimDir makes dir the one of slot.
func claimDir(dir string, slot uint32) error {
	path, want := filepath.Join(dir, slotName), strconv.FormatUint(uint64(slot), 10)
	have, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return durable.Replace(path, []byte(want))
	case err != nil:
		return err
	case string(have) == want:
		return nil
	}
	if _, err := strconv.ParseUint(string(have), 10, 32); err != nil {
		return fmt.Errorf("file %s is damaged: %w", slotName, err)
	}
	for _, name := range []string{dataName, unbookedName, epochName} {
		if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return durable.Replace(path, []byte(want))
}

// has reports whether a folder of the tenant with this slot exists.
func (d *directories) has(id bulkhead.TenantID, slot uint32) bool {
	have, err := os.ReadFile(filepath.Join(d.base, string(id), slotName))
	return err == nil && string(have) == strconv.FormatUint(uint64(slot), 10)
}

// noteEpoch keeps the tenant's newest epoch where a restore of the state does not
// reach it. It is not synced: whoever cuts the power does not restore a backup
// before the next start.
func (d *directories) noteEpoch(id bulkhead.TenantID, epoch bulkhead.Epoch) error {
	path := filepath.Join(d.base, string(id), epochName)
	if err := os.WriteFile(path, strconv.AppendUint(nil, uint64(epoch), 10), 0o600); err != nil {
		return fmt.Errorf("note epoch of %s: %w", id, err)
	}
	return nil
}

// lastEpoch answers what noteEpoch noted; 0 when there is nothing that can be
// read.
func (d *directories) lastEpoch(id bulkhead.TenantID) bulkhead.Epoch {
	text, err := os.ReadFile(filepath.Join(d.base, string(id), epochName))
	if err != nil {
		return 0
	}
	epoch, err := strconv.ParseUint(string(text), 10, 64)
	if err != nil {
		return 0
	}
	return bulkhead.Epoch(epoch)
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
	return durable.SyncDir(filepath.Dir(path))
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
	return durable.SyncDir(filepath.Dir(path))
}
