package shares

import (
	"bytes"
	"errors"
	"io/fs"
	"maps"
	"slices"
)

var errDisk = errors.New("the disk refuses")

// block is a file's place on the disk. It outlives its names.
type block struct{ b []byte }

// memFolder is a folder in memory that fails at one step, and tells afterwards
// what is on the disk.
type memFolder struct {
	live, durable map[string]*block
	ever          []*block
	steps         int
	failAt        int  // step that fails, 1, 2, ...; 0 = none
	dead          bool // with failAt: every later step fails too, as after a power cut
	torn          bool // the write that fails has begun
}

func newMemFolder() *memFolder {
	return &memFolder{live: map[string]*block{}, durable: map[string]*block{}}
}

func (m *memFolder) step() error {
	m.steps++
	if m.failAt != 0 && (m.steps == m.failAt || m.dead && m.steps > m.failAt) {
		return errDisk
	}
	return nil
}

// afterCrash is what a new process finds, in blocks of its own: names that were not
// made durable are there, and may still go with the next crash, or are not.
func (m *memFolder) afterCrash(names bool) *memFolder {
	out := newMemFolder()
	blocks := map[*block]*block{}
	for _, f := range m.ever {
		blocks[f] = &block{bytes.Clone(f.b)}
		out.ever = append(out.ever, blocks[f])
	}
	for name, f := range m.durable {
		out.durable[name] = blocks[f]
	}
	out.live = maps.Clone(out.durable)
	if names {
		clear(out.live)
		for name, f := range m.live {
			out.live[name] = blocks[f]
		}
	}
	return out
}

// holds reports whether b is anywhere on the disk, named or not.
func (m *memFolder) holds(b []byte) bool {
	return slices.ContainsFunc(m.ever, func(f *block) bool { return bytes.Contains(f.b, b) })
}

func (m *memFolder) List() ([]string, error) {
	if err := m.step(); err != nil {
		return nil, err
	}
	return slices.Sorted(maps.Keys(m.live)), nil
}

func (m *memFolder) Read(name string, limit int64) ([]byte, error) {
	if err := m.step(); err != nil {
		return nil, err
	}
	f := m.live[name]
	if f == nil {
		return nil, fs.ErrNotExist
	}
	return bytes.Clone(f.b[:min(limit, int64(len(f.b)))]), nil
}

func (m *memFolder) Create(name string, b []byte) error {
	if m.live[name] != nil {
		return fs.ErrExist
	}
	err := m.step()
	f := new(block)
	switch {
	case err == nil:
		f.b = bytes.Clone(b)
	case m.torn:
		f.b = bytes.Clone(b[:len(b)/2])
	default:
		return err
	}
	m.live[name], m.ever = f, append(m.ever, f)
	return err
}

func (m *memFolder) Overwrite(name string, b []byte) error {
	f := m.live[name]
	if f == nil {
		return fs.ErrNotExist
	}
	err := m.step()
	switch {
	case err == nil:
		f.b = bytes.Clone(b)
	case m.torn:
		copy(f.b, b[:64])
	}
	return err
}

func (m *memFolder) Rename(from, to string) error {
	if err := m.step(); err != nil {
		return err
	}
	if m.live[from] == nil {
		return fs.ErrNotExist
	}
	m.live[to] = m.live[from]
	delete(m.live, from)
	return nil
}

func (m *memFolder) Remove(name string) error {
	if err := m.step(); err != nil {
		return err
	}
	if m.live[name] == nil {
		return fs.ErrNotExist
	}
	delete(m.live, name)
	return nil
}

func (m *memFolder) Sync() error {
	if err := m.step(); err != nil {
		return err
	}
	m.durable = maps.Clone(m.live)
	return nil
}

func (m *memFolder) Close() error { return nil }
