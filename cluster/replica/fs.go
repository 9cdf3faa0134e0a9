package replica

import "github.com/bulkhead-ai/bulkhead/worker/durable"

// FS is the disk as keepers use it; the simulator puts one in memory in its
// place. Methods return the system's errors, so that errors.Is finds
// syscall.ENOSPC.
type FS interface {
	// OpenDir opens a folder. With create it is made if it is missing, with mode
	// 0700, durably; otherwise a missing folder is fs.ErrNotExist.
	OpenDir(path string, create bool) (Dir, error)
}

// Dir is an open folder. Names have no separators and are never followed where
// they are links.
type Dir interface {
	// Lock takes the folder until Close; ErrBusy when somebody else has it.
	Lock() error
	List() ([]string, error)
	// Open opens an existing file for reading, or for both with write set.
	Open(name string, write bool) (File, error)
	// Create makes an empty file of mode 0600 that belongs to the owner of the
	// folder; the file may exist and is emptied.
	Create(name string) (File, error)
	Rename(from, to string) error
	Remove(name string) error
	// Sync makes creations, renames and removals durable.
	Sync() error
	// Free is the space that is left to unprivileged writers, in bytes.
	Free() (int64, error)
	Close() error
}

// File is an open file of a folder.
type File = durable.Segment
