package audit

import (
	"encoding/hex"
	"fmt"

	"github.com/bulkhead-ai/bulkhead/worker/receipt"
)

// Damage is the first thing that is wrong with a log.
type Damage struct {
	Log    string `json:"log"`
	Seq    uint64 `json:"seq"` // the record that is changed, missing or misplaced
	Reason string `json:"reason"`
}

// Error implements error.
func (d *Damage) Error() string {
	return fmt.Sprintf("audit log %s: record %d: %s", d.Log, d.Seq, d.Reason)
}

// Verifier takes the lines of one log in order and finds the first damage. Give
// it the checkpoints that are known, the lines, and then ask Finish: a log whose
// end was changed or cut off looks whole without a checkpoint. Where neighbours
// were changed and no checkpoint lies between, it may name the second of them.
//
// A Verifier is for one goroutine. Its memory does not grow with the log.
type Verifier struct {
	log    Log
	points map[uint64]receipt.Hash // roots that are still to come, by size
	good   uint64                  // size of the last checkpoint that held
	broken bool                    // the last line does not name the one before it: one of the two was changed
	found  error
}

// NewVerifier goes on after from, which is trusted. Log{Name: name} is the
// beginning of a log.
func NewVerifier(from Log) *Verifier {
	return &Verifier{log: from, points: map[uint64]receipt.Hash{}, good: from.Size}
}

// Expect says that the log of this size had this root. It must be told before
// the line that makes the log that long; for one that is reached already the
// answer comes at once. Errors: a *Damage.
func (v *Verifier) Expect(size uint64, root receipt.Hash) error {
	if v.found != nil {
		return v.found
	}
	if known, ok := v.points[size]; ok && known != root {
		return v.damaged(size, "two checkpoints say different things of the log: its history was forked")
	}
	switch {
	case size > v.log.Size:
		v.points[size] = root
	case size == v.log.Size:
		return v.compare(root)
	case size != 0:
		return fmt.Errorf("audit log %s: a checkpoint of %d records came after record %d", v.log.Name, size, v.log.Size)
	}
	return nil
}

// Add takes the next line, without its newline. The error is a *Damage, at the
// latest with the line after the damage or with Finish, and the same one ever
// after.
func (v *Verifier) Add(line []byte) error {
	if v.found != nil {
		return v.found
	}
	seq := v.log.Size + 1
	r, err := ReadRecord(line)
	switch {
	case err != nil:
		return v.settle(seq, err.Error())
	case r.Log != v.log.Name:
		return v.settle(seq, "it is of the log "+r.Log)
	case r.Seq > seq:
		return v.settle(seq, fmt.Sprintf("it is missing, record %d stands in its place", r.Seq))
	case r.Seq < seq:
		return v.settle(seq, fmt.Sprintf("record %d stands in its place", r.Seq))
	}
	named := r.Prev == hex.EncodeToString(v.log.Head)
	if v.broken {
		return v.resolve(named)
	}
	if named && r.At < v.log.At {
		return v.damaged(seq, "its time is before that of the record before it")
	}
	v.broken = !named
	return v.take(r, line)
}

// take moves on by a line and looks at the checkpoint of the new size.
func (v *Verifier) take(r Record, line []byte) error {
	f, err := v.log.frontier()
	if err != nil {
		v.found = err
		return err
	}
	leaf := receipt.LeafHash(line)
	f.Append(leaf)
	raw, err := f.MarshalBinary()
	if err != nil {
		v.found = fmt.Errorf("tree of %s: %w", v.log.Name, err)
		return v.found
	}
	v.log = Log{Name: v.log.Name, Size: r.Seq, At: r.At, Head: leaf[:], Frontier: raw}
	root, ok := v.points[r.Seq]
	if !ok || v.broken {
		return nil // a broken link is the better answer
	}
	delete(v.points, r.Seq)
	return v.compare(root)
}

func (v *Verifier) compare(root receipt.Hash) error {
	have, err := v.log.Root()
	if err != nil {
		v.found = err
		return err
	}
	if have != root {
		return v.damaged(v.log.Size, fmt.Sprintf("the log that was signed is another one: it was changed after record %d", v.good))
	}
	v.good = v.log.Size
	return nil
}

// settle reports damage at seq, unless the lines before it are damaged.
func (v *Verifier) settle(seq uint64, reason string) error {
	if v.broken {
		return v.resolve(true)
	}
	return v.damaged(seq, reason)
}

// resolve says which of two lines was changed that do not fit together: the
// first, unless a checkpoint vouches for it or the line after the second names
// another one than the second.
func (v *Verifier) resolve(second bool) error {
	if second && v.good != v.log.Size-1 {
		return v.damaged(v.log.Size-1, "it was changed: the record after it names another one")
	}
	return v.damaged(v.log.Size, "it was changed: it does not name the record before it, or is not the one that the next names")
}

// Finish says that this was the last line. The error is a *Damage.
func (v *Verifier) Finish() error {
	switch {
	case v.found != nil:
		return v.found
	case v.broken:
		return v.resolve(true)
	case len(v.points) > 0:
		return v.damaged(v.log.Size+1, "it is missing: a checkpoint says that the log was longer")
	}
	return nil
}

// Log is how far the lines went so far.
func (v *Verifier) Log() Log { return v.log }

func (v *Verifier) damaged(seq uint64, reason string) error {
	v.found = &Damage{Log: v.log.Name, Seq: seq, Reason: reason}
	return v.found
}
