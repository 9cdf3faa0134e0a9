package replica

import (
	"errors"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"

	"github.com/bulkhead-ai/bulkhead/worker/sealed"
)

// memDisk is a disk that forgets what was not synced when its power is cut:
// sectors one by one, changes of a folder from some point on.
type memDisk struct {
	mu     sync.Mutex
	dirs   map[string]*memDir
	noSync bool // the mutant whose syncs of a journal do nothing: the kernel writes, a little later
}

type memDir struct {
	live    map[string]*memFile
	durable map[string]*memFile
	ops     []dirOp // since the last sync
	lock    *memView
}

type dirOp struct {
	name string
	file *memFile // nil = removed
}

type memFile struct {
	data    []byte
	durable []byte
	dirty   map[int]bool // sectors
	late    map[int]bool // dirty ones that the kernel writes at its next turn
}

func newMemDisk() *memDisk { return &memDisk{dirs: map[string]*memDir{}} }

// cut is a power cut; nobody may have the disk open.
func (d *memDisk) cut(rng *rand.Rand) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, path := range slices.Sorted(maps.Keys(d.dirs)) {
		dir := d.dirs[path]
		for _, op := range dir.ops[:rng.IntN(len(dir.ops)+1)] {
			dir.durable[op.name] = op.file
			if op.file == nil {
				delete(dir.durable, op.name)
			}
		}
		dir.live, dir.ops, dir.lock = maps.Clone(dir.durable), nil, nil
		for _, name := range slices.Sorted(maps.Keys(dir.live)) {
			f := dir.live[name]
			for _, s := range slices.Sorted(maps.Keys(f.dirty)) {
				if rng.IntN(2) == 0 {
					copy(f.data[s*sealed.SectorSize:], f.durable[s*sealed.SectorSize:min(len(f.durable), (s+1)*sealed.SectorSize)])
				}
			}
			f.durable, f.dirty = slices.Clone(f.data), map[int]bool{}
		}
	}
}

// view is the disk as one process sees it; kill takes it away.
func (d *memDisk) view() *memView { return &memView{d: d} }

type memView struct {
	d    *memDisk
	dead bool
}

var errDead = errors.New("the process is dead")

func (v *memView) kill() {
	v.d.mu.Lock()
	defer v.d.mu.Unlock()
	v.dead = true
	for _, dir := range v.d.dirs {
		if dir.lock == v {
			dir.lock = nil
		}
	}
}

func (v *memView) OpenDir(path string, create bool) (Dir, error) {
	v.d.mu.Lock()
	defer v.d.mu.Unlock()
	if v.dead {
		return nil, errDead
	}
	dir := v.d.dirs[path]
	if dir == nil {
		if !create {
			return nil, fs.ErrNotExist
		}
		dir = &memDir{live: map[string]*memFile{}, durable: map[string]*memFile{}}
		v.d.dirs[path] = dir
	}
	return &memHandle{v: v, dir: dir}, nil
}

// memHandle is an open folder.
type memHandle struct {
	v      *memView
	dir    *memDir
	locked bool
}

func (h *memHandle) do(fn func() error) error {
	h.v.d.mu.Lock()
	defer h.v.d.mu.Unlock()
	if h.v.dead {
		return errDead
	}
	return fn()
}

func (h *memHandle) set(name string, f *memFile) {
	h.dir.ops = append(h.dir.ops, dirOp{name, f})
	h.dir.live[name] = f
	if f == nil {
		delete(h.dir.live, name)
	}
}

func (h *memHandle) Lock() error {
	return h.do(func() error {
		if h.dir.lock != nil {
			return ErrBusy
		}
		h.dir.lock, h.locked = h.v, true
		return nil
	})
}

func (h *memHandle) List() (names []string, err error) {
	err = h.do(func() error { names = slices.Sorted(maps.Keys(h.dir.live)); return nil })
	return names, err
}

func (h *memHandle) Open(name string, _ bool) (f File, err error) {
	err = h.do(func() error {
		is := h.dir.live[name]
		if is == nil {
			return fs.ErrNotExist
		}
		f = &memOpen{h, is}
		return nil
	})
	return f, err
}

func (h *memHandle) Create(name string) (f File, err error) {
	err = h.do(func() error {
		is := &memFile{dirty: map[int]bool{}}
		h.set(name, is)
		f = &memOpen{h, is}
		return nil
	})
	return f, err
}

func (h *memHandle) Rename(from, to string) error {
	return h.do(func() error {
		f := h.dir.live[from]
		if f == nil {
			return fs.ErrNotExist
		}
		h.set(to, f)
		h.set(from, nil)
		return nil
	})
}

func (h *memHandle) Remove(name string) error {
	return h.do(func() error {
		if h.dir.live[name] == nil {
			return fs.ErrNotExist
		}
		h.set(name, nil)
		return nil
	})
}

func (h *memHandle) Sync() error {
	return h.do(func() error {
		h.dir.durable, h.dir.ops = maps.Clone(h.dir.live), nil
		return nil
	})
}

func (h *memHandle) Free() (int64, error) { return 1 << 40, nil }

func (h *memHandle) Close() error {
	h.v.d.mu.Lock()
	defer h.v.d.mu.Unlock()
	if h.locked && h.dir.lock == h.v {
		h.dir.lock = nil
	}
	h.locked = false
	return nil
}

// memOpen is an open file.
type memOpen struct {
	h *memHandle
	f *memFile
}

func (o *memOpen) ReadAt(b []byte, off int64) (n int, err error) {
	err = o.h.do(func() error {
		if off < int64(len(o.f.data)) {
			n = copy(b, o.f.data[off:])
		}
		if n < len(b) {
			return io.EOF
		}
		return nil
	})
	return n, err
}

func (o *memOpen) WriteAt(b []byte, off int64) (int, error) {
	return len(b), o.h.do(func() error {
		o.grow(off + int64(len(b)))
		copy(o.f.data[off:], b)
		for s := off / sealed.SectorSize; s*sealed.SectorSize < off+int64(len(b)); s++ {
			o.f.dirty[int(s)] = true
		}
		return nil
	})
}

func (o *memOpen) grow(size int64) {
	if n := size - int64(len(o.f.data)); n > 0 {
		o.f.data = append(o.f.data, make([]byte, n)...)
		o.f.durable = append(o.f.durable, make([]byte, n)...)
	}
}

func (o *memOpen) Close() error { return nil }

func (o *memOpen) Size() (n int64, err error) {
	err = o.h.do(func() error { n = int64(len(o.f.data)); return nil })
	return n, err
}

func (o *memOpen) Allocate(size int64) error {
	return o.h.do(func() error { o.grow(size); return nil })
}

func (o *memOpen) Datasync() error {
	return o.h.do(func() error {
		if o.h.v.d.noSync && o.h.dir == o.h.v.d.dirs["journal"] {
			o.flush(o.f.late)
			o.f.late = maps.Clone(o.f.dirty)
			return nil
		}
		o.flush(o.f.dirty)
		return nil
	})
}

func (o *memOpen) flush(sectors map[int]bool) {
	for s := range sectors {
		end := min(len(o.f.data), (s+1)*sealed.SectorSize)
		copy(o.f.durable[s*sealed.SectorSize:end], o.f.data[s*sealed.SectorSize:end])
		delete(o.f.dirty, s)
	}
}
