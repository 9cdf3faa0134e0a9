package journal

import (
	"errors"
	"fmt"
	"slices"

	"github.com/bulkhead-ai/bulkhead/worker/sealed"
)

// Replay calls fn for every durable record from sequence number from on, in
// order; records that retention has dropped are left out (see Oldest). It
// verifies all that it reads and stops with ErrDamaged, or with fn's error as
// it is. It may run beside Append and beside other replays; records that become
// durable meanwhile are not included.
func (j *Journal) Replay(from uint64, fn func(Record) error) error {
	c := j.Cursor(from)
	defer c.Close()
	return c.Read(fn)
}

// Cursor reads the journal as it grows and remembers where it stopped. It is
// not safe for concurrent use.
type Cursor struct {
	j    *Journal
	safe bool     // confirmed records only
	seq  uint64   // of the next record for the caller
	f    File     // of the segment that scan reads, nil between segments
	scan *scanner // at or before seq
	err  error    // why nothing more can be read
}

// Cursor makes a cursor whose first record is number from, or the first one
// that the journal holds.
func (j *Journal) Cursor(from uint64) *Cursor { return &Cursor{j: j, seq: from} }

// Close closes the file that the cursor holds.
func (c *Cursor) Close() error {
	if c.f == nil {
		return nil
	}
	f := c.f
	c.f, c.scan = nil, nil
	return f.Close()
}

// Read calls fn for every record that is durable now and was not read before.
// After an error of fn the cursor must not be used again; ErrDamaged stays.
func (c *Cursor) Read(fn func(Record) error) error {
	if c.err != nil {
		return c.err
	}
	j := c.j
	j.files.RLock()
	defer j.files.RUnlock()
	j.mu.Lock()
	segments, upTo := slices.Clone(j.segments), j.durable.seq
	if c.safe {
		upTo = j.confirmedLocked()
	}
	j.mu.Unlock()
	c.err = c.advance(segments, upTo, func(s *scanner) error {
		if s.Group().Last < c.seq {
			return nil
		}
		return s.records(c.seq, func(r Record) error {
			if err := fn(r); err != nil {
				return callerError{err}
			}
			c.seq = r.Seq + 1
			return nil
		})
	})
	var own callerError
	if errors.As(c.err, &own) {
		c.err = own.error
	}
	return c.err
}

// callerError carries an error of a callback past the damage reports.
type callerError struct{ error }

// advance calls fn for the groups up to record upTo, from the segment of seq on.
func (c *Cursor) advance(segments []segment, upTo uint64, fn func(*scanner) error) error {
	c.seq = max(c.seq, segments[0].First)
	next := c.seq
	if c.scan != nil {
		next = c.scan.Seq()
		c.scan.Forget()
	}
	for next <= upTo {
		i := len(segments) - 1
		for i > 0 && segments[i].First > next {
			i--
		}
		if err := c.read(segments[i:], upTo, fn); err != nil {
			var own callerError
			if errors.As(err, &own) {
				return err
			}
			return fmt.Errorf("read segment %s: %w", sealed.SegmentName(segments[i].First), err)
		}
		next = c.scan.Seq()
	}
	return nil
}

// read reads from segments[0], up to its end or record upTo.
func (c *Cursor) read(segments []segment, upTo uint64, fn func(*scanner) error) error {
	if err := c.enter(segments[0].First); err != nil {
		return err
	}
	s := c.scan
	last := len(segments) == 1
	s.Limit(segments[0].Size)
	if !last {
		s.Limit(segments[1].PrevEnd)
	}
	for s.Seq() <= upTo && s.next() {
		if err := fn(s); err != nil {
			return wrapFrame(err)
		}
	}
	switch {
	case s.err != nil:
		return fmt.Errorf("%w: %w", ErrDamaged, s.err)
	case s.Seq() > upTo && (last || s.Seq() < segments[1].First):
		return nil
	case last:
		return fmt.Errorf("%w: ends before record %d, want %d", ErrDamaged, s.Seq(), upTo)
	case s.Offset() != segments[1].PrevEnd || s.Seq() != segments[1].First || s.Chain() != segments[1].Chain:
		return fmt.Errorf("%w: ends before record %d and is not what segment %s continues",
			ErrDamaged, s.Seq(), sealed.SegmentName(segments[1].First))
	}
	return nil
}

func wrapFrame(err error) error {
	if errors.Is(err, errFrame) {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return err
}

// enter opens the segment that begins with record first, unless it is open.
func (c *Cursor) enter(first uint64) error {
	if c.scan != nil && c.scan.seal.first == first {
		return nil
	}
	if err := c.Close(); err != nil {
		return err
	}
	f, seg, err := openSegment(c.j.fs, c.j.cfg.Dir, first, c.j.keys, false)
	if err != nil {
		return err
	}
	if c.scan, err = c.j.keys.scanner(f, &seg.Header); err != nil {
		return errors.Join(err, f.Close())
	}
	c.f = f
	return nil
}
