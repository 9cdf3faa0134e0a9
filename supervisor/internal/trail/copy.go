package trail

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/bulkhead-ai/bulkhead/worker/durable"
	"github.com/bulkhead-ai/bulkhead/worker/receipt"
)

// copyOf is this node's copy of one log. Methods may be called concurrently.
type copyOf struct {
	log   string
	dir   string
	bound int64 // bytes after which a segment is full

	mu      sync.Mutex
	size    uint64       // last record here; those before it may be damaged or missing
	head    receipt.Hash // of that record
	first   uint64       // of the last segment; 0 = none
	bytes   int64        // of the last segment
	stale   bool         // what is above is not known to be what the disk has
	suspect bool         // the log must be walked
	kept    uint64       // size of the newest kept checkpoint
	made    bool         // the folder is new, and the log is not: what it lacks it never had
}

// openCopy finds out how far the copy goes, and cuts off what a crash left of a
// line. The state's lines, and the walk, tell whether what is there is right.
func openCopy(root, log string, bound int64) (*copyOf, error) {
	c := &copyOf{log: log, dir: filepath.Join(root, folderOf(log)), bound: bound}
	made, err := makeDir(root, c.dir)
	if err != nil {
		return nil, err
	}
	c.made = made
	if err := durable.Sweep(c.dir); err != nil {
		return nil, err
	}
	if c.kept, err = openCheckpoints(c.dir); err != nil {
		return nil, err
	}
	return c, c.reload()
}

// makeDir makes a log's folder, and says whether it was not there.
func makeDir(root, dir string) (made bool, err error) {
	err = os.Mkdir(dir, 0o700)
	if errors.Is(err, os.ErrExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("make audit folder: %w", err)
	}
	return true, durable.SyncDir(root)
}

// reload reads size, head and last segment from the disk; under c.mu, or before
// the copy is shared.
func (c *copyOf) reload() error {
	if _, err := makeDir(filepath.Dir(c.dir), c.dir); err != nil {
		return err
	}
	firsts, err := listSegments(c.dir)
	if err != nil {
		return err
	}
	c.size, c.head, c.first, c.bytes = 0, receipt.Hash{}, 0, 0
	for _, first := range slices.Backward(firsts) {
		found, err := c.reloadFrom(first)
		if err != nil {
			return err
		}
		if found {
			break
		}
	}
	c.stale = false
	return nil
}

// reloadFrom takes the end of a segment as the end of the copy. False: it holds
// no record, and is set aside, or was empty and is removed.
func (c *copyOf) reloadFrom(first uint64) (bool, error) {
	name := segmentName(first)
	path := filepath.Join(c.dir, name)
	lines, torn, err := readSegment(c.log, path)
	if err != nil {
		return false, err
	}
	good := len(lines)
	for good > 0 && lines[good-1].seq == 0 {
		good--
	}
	// A crash leaves one line without its end; more than that is damage.
	damaged := good < len(lines) && (len(lines)-good > 1 || !torn)
	if damaged {
		c.suspect = true
		if err := setAside(c.dir, name); err != nil {
			return false, err
		}
	}
	if good == 0 {
		if err := os.Remove(path); err != nil {
			return false, fmt.Errorf("remove torn audit segment: %w", err)
		}
		return false, durable.SyncDir(c.dir)
	}
	c.bytes = 0
	for i := range lines[:good] {
		c.bytes += int64(len(lines[i].raw)) + 1
	}
	if damaged {
		err = writeSegment(c.dir, first, lines[:good])
	} else if torn {
		err = truncate(path, c.bytes)
	}
	if err != nil {
		return false, err
	}
	last := &lines[good-1]
	c.size, c.head, c.first = last.seq, last.hash, first
	return true, nil
}

func truncate(path string, n int64) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("cut torn audit segment: %w", err)
	}
	if err := errors.Join(f.Truncate(n), f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("cut torn audit segment: %w", err)
	}
	return nil
}

// take stores lines of the applied state, in their order. Those that are here
// already are compared: the state is right, so what differs is set aside from
// there on. A gap before the lines, or a record before them that they do not
// follow, is left to the walk.
func (c *copyOf) take(lines []line) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stale {
		if err := c.reload(); err != nil {
			return err
		}
	}
	known := 0
	for known < len(lines) && lines[known].seq <= c.size {
		known++
	}
	if known > 0 {
		differs, err := c.compare(lines[:known])
		if err != nil {
			return err
		}
		if differs > 0 {
			if err := c.cut(differs); err != nil {
				return err
			}
			known = 0
			for known < len(lines) && lines[known].seq <= c.size {
				known++
			}
		}
	}
	if err := c.append(lines[known:]); err != nil {
		c.stale = true
		return err
	}
	return nil
}

// compare answers the first record that is not as the state says; 0: all are. A
// record that is not here is for the walk to find.
func (c *copyOf) compare(lines []line) (differs uint64, err error) {
	firsts, err := listSegments(c.dir)
	if err != nil {
		return 0, err
	}
	from, to := lines[0].seq, lines[len(lines)-1].seq
	want := make(map[uint64]*line, len(lines))
	for i := range lines {
		want[lines[i].seq] = &lines[i]
	}
	for i, first := range firsts {
		if first > to || i+1 < len(firsts) && firsts[i+1] <= from {
			continue
		}
		have, _, err := readSegment(c.log, filepath.Join(c.dir, segmentName(first)))
		if err != nil {
			return 0, err
		}
		for j := range have {
			h := &have[j]
			if w := want[h.seq]; w == nil || bytes.Equal(w.raw, h.raw) {
				continue
			}
			return h.seq, nil
		}
	}
	return 0, nil
}

// cut sets aside what is here from a record on.
func (c *copyOf) cut(from uint64) error {
	c.suspect = true
	firsts, err := listSegments(c.dir)
	if err != nil {
		return err
	}
	for i, first := range firsts {
		if i+1 < len(firsts) && firsts[i+1] <= from && first < from {
			continue
		}
		if err := c.cutSegment(first, from); err != nil {
			return err
		}
	}
	if err := durable.SyncDir(c.dir); err != nil {
		return err
	}
	return c.reload()
}

func (c *copyOf) cutSegment(first, from uint64) error {
	path := filepath.Join(c.dir, segmentName(first))
	lines, _, err := readSegment(c.log, path)
	if err != nil {
		return err
	}
	keep := slices.IndexFunc(lines, func(l line) bool { return l.seq >= from })
	if keep < 0 {
		return nil
	}
	if err := setAside(c.dir, segmentName(first)); err != nil {
		return err
	}
	if keep > 0 {
		return writeSegment(c.dir, first, lines[:keep])
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("set audit segment aside: %w", err)
	}
	return nil
}

// append writes lines behind the last one; it is synced when it returns.
func (c *copyOf) append(lines []line) error {
	for len(lines) > 0 {
		follows := c.first > 0 && lines[0].follows(c.size, c.head)
		if begins := c.size == 0 && lines[0].seq == 1; begins {
			c.made = false
		} else if !follows {
			c.suspect = true
		}
		fresh := !follows || c.bytes >= c.bound
		first := c.first
		if fresh {
			first = lines[0].seq
		}
		n, room := 0, c.bound-c.bytes
		if fresh {
			room = c.bound
		}
		var buf bytes.Buffer
		for n < len(lines) && (n == 0 || int64(buf.Len()) < room && lines[n].follows(lines[n-1].seq, lines[n-1].hash)) {
			buf.Write(lines[n].raw)
			buf.WriteByte('\n')
			n++
		}
		if err := c.write(first, fresh, buf.Bytes()); err != nil {
			return err
		}
		last := &lines[n-1]
		if fresh {
			c.first, c.bytes = first, 0
		}
		c.size, c.head, c.bytes = last.seq, last.hash, c.bytes+int64(buf.Len())
		lines = lines[n:]
	}
	return nil
}

func (c *copyOf) write(first uint64, fresh bool, b []byte) error {
	flags := os.O_WRONLY | os.O_APPEND
	if fresh {
		flags |= os.O_CREATE | os.O_EXCL
	}
	f, err := os.OpenFile(filepath.Join(c.dir, segmentName(first)), flags, 0o600)
	if err != nil {
		return fmt.Errorf("append to audit segment: %w", err)
	}
	_, err = f.Write(b)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("append to audit segment: %w", err)
	}
	if fresh {
		return durable.SyncDir(c.dir)
	}
	return nil
}

// damagedFiles lists what was set aside.
func (c *copyOf) damagedFiles() int {
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		return 0
	}
	n := 0
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), asidePrefix) {
			n++
		}
	}
	return n
}
