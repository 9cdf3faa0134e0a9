package replica

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/bulkhead-ai/bulkhead/worker/durable"
	"golang.org/x/sys/unix"
)

// disk is the real FS. The last two elements of a journal's path (data/journal)
// may be written by the tenant's worker, which is not trusted, while keepers may
// run as root: so below the third last element no link is followed, and only
// plain files with one name are opened.
type disk struct{}

// Disk is the real FS.
func Disk() FS { return disk{} }

const (
	beneath  = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS
	openBits = unix.O_CLOEXEC | unix.O_NOFOLLOW | unix.O_NONBLOCK
)

type diskDir struct {
	f        *os.File
	uid, gid int
}

func (disk) OpenDir(path string, create bool) (Dir, error) {
	inner, leaf := filepath.Split(filepath.Clean(path))
	inner = filepath.Clean(inner)
	base, mid := filepath.Dir(inner), filepath.Base(inner)
	if create {
		if err := os.MkdirAll(base, 0o700); err != nil {
			return nil, err
		}
	}
	d, err := os.OpenFile(base, unix.O_DIRECTORY|unix.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	for _, name := range []string{mid, leaf} {
		next, err := descend(d, name, create)
		d.Close()
		if err != nil {
			return nil, err
		}
		d = next
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(d.Fd()), &st); err != nil {
		d.Close()
		return nil, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	return &diskDir{f: d, uid: int(st.Uid), gid: int(st.Gid)}, nil
}

// descend opens the folder name of d, or makes it, owned by who owns d.
func descend(d *os.File, name string, create bool) (*os.File, error) {
	path := filepath.Join(d.Name(), name)
	if create {
		err := unix.Mkdirat(int(d.Fd()), name, 0o700)
		if err == nil {
			err = giveAway(d, name)
		}
		if err != nil && err != unix.EEXIST {
			return nil, &fs.PathError{Op: "mkdir", Path: path, Err: err}
		}
	}
	fd, err := openBeneath(d, name, unix.O_DIRECTORY|unix.O_RDONLY, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

// giveAway makes the new folder name durable and hands it to the owner of d.
func giveAway(d *os.File, name string) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(d.Fd()), &st); err != nil {
		return err
	}
	if os.Geteuid() == 0 && st.Uid != 0 {
		if err := unix.Fchownat(int(d.Fd()), name, int(st.Uid), int(st.Gid), unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
	}
	return unix.Fsync(int(d.Fd()))
}

func openBeneath(d *os.File, name string, flags int, mode uint64) (int, error) {
	for {
		fd, err := unix.Openat2(int(d.Fd()), name, &unix.OpenHow{
			Flags: uint64(flags | openBits), Mode: mode, Resolve: beneath})
		if err != unix.EINTR && err != unix.EAGAIN {
			return fd, err
		}
	}
}

func (d *diskDir) Lock() error {
	err := unix.Flock(int(d.f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == unix.EWOULDBLOCK {
		return ErrBusy
	}
	return d.wrap("flock", "", err)
}

func (d *diskDir) wrap(op, name string, err error) error {
	if err == nil {
		return nil
	}
	return &fs.PathError{Op: op, Path: filepath.Join(d.f.Name(), name), Err: err}
}

func (d *diskDir) List() ([]string, error) {
	fd, err := openBeneath(d.f, ".", unix.O_DIRECTORY|unix.O_RDONLY, 0)
	if err != nil {
		return nil, d.wrap("open", "", err)
	}
	f := os.NewFile(uintptr(fd), d.f.Name())
	defer f.Close()
	return f.Readdirnames(-1)
}

func (d *diskDir) Open(name string, write bool) (File, error) {
	mode := unix.O_RDONLY
	if write {
		mode = unix.O_RDWR
	}
	return d.open(name, mode, 0)
}

func (d *diskDir) Create(name string) (File, error) {
	f, err := d.open(name, unix.O_RDWR|unix.O_CREAT, 0o600)
	if err != nil {
		return nil, err
	}
	err = errors.Join(f.Chmod(0o600), f.Truncate(0))
	if err == nil && os.Geteuid() == 0 && d.uid != 0 {
		err = f.Chown(d.uid, d.gid)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func (d *diskDir) open(name string, flags int, mode uint64) (durable.SegmentFile, error) {
	fd, err := openBeneath(d.f, name, flags, mode)
	if err != nil {
		return durable.SegmentFile{}, d.wrap("open", name, err)
	}
	f := durable.SegmentFile{File: os.NewFile(uintptr(fd), filepath.Join(d.f.Name(), name))}
	var st unix.Stat_t
	err = unix.Fstat(fd, &st)
	if err == nil && (st.Mode&unix.S_IFMT != unix.S_IFREG || st.Nlink != 1) {
		err = fmt.Errorf("not a plain file with one name")
	}
	if err != nil {
		return durable.SegmentFile{}, errors.Join(d.wrap("open", name, err), f.Close())
	}
	return f, nil
}

func (d *diskDir) Rename(from, to string) error {
	fd := int(d.f.Fd())
	return d.wrap("rename", from, unix.Renameat(fd, from, fd, to))
}

func (d *diskDir) Remove(name string) error {
	return d.wrap("remove", name, unix.Unlinkat(int(d.f.Fd()), name, 0))
}

func (d *diskDir) Sync() error { return d.f.Sync() }

func (d *diskDir) Free() (int64, error) {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(d.f.Fd()), &st); err != nil {
		return 0, d.wrap("statfs", "", err)
	}
	return int64(st.Bavail) * st.Bsize, nil
}

func (d *diskDir) Close() error { return d.f.Close() }
