package journal

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/bulkhead-ai/bulkhead"
)

// Durability is what Pending.Wait waits for.
type Durability uint8

// The levels.
const (
	Written    Durability = iota // given to the kernel: survives the process
	Synced                       // on stable storage: survives the machine's restart
	Replicated                   // and in enough other copies: survives the machine. Synced where no copies are kept

	levels = 3
)

// batch collects records until the writer takes them. It is guarded by
// Journal.mu until then, and owned by the writer afterwards; the errors are
// written before their channels are closed and never again.
type batch struct {
	plain  []byte
	ends   []int // end of each record in plain
	first  uint64
	marks  []mark
	room   int64  // what its records count against Journal.room
	last   uint64 // newest record when it was written, set by the writer
	sync   bool   // somebody waits for Synced, or Replicated
	copied bool   // somebody waits for Replicated
	asked  bool   // Flush was called: to be handled even when empty
	done   [levels]chan struct{}
	failed [levels]error
}

// mark notes a record that changes group headers from then on.
type mark struct {
	index      int            // of the record in the batch
	checkpoint uint64         // KindCheckpoint
	oldest     uint64         // KindRetention
	epoch      bulkhead.Epoch // KindEpoch
}

func (j *Journal) newBatch(buf []byte) *batch {
	b := &batch{plain: buf[:0]}
	for level := range b.done {
		if level != int(Replicated) || j.cfg.Replicator != nil {
			b.done[level] = make(chan struct{})
		}
	}
	return b
}

func (b *batch) finish(level Durability, err error) {
	if b.done[level] == nil {
		return
	}
	select {
	case <-b.done[level]:
	default:
		b.failed[level] = err
		close(b.done[level])
	}
}

// Pending is a record on its way to the disk.
type Pending struct {
	Seq   uint64
	b     *batch
	level Durability
}

// Reached reports whether the record is known to have reached the level by now.
func (p Pending) Reached(level Durability) bool {
	done := p.b.done[level]
	if done == nil { // no copies are kept
		level, done = Synced, p.b.done[Synced]
	}
	select {
	case <-done:
		return p.b.failed[level] == nil
	default:
		return false
	}
}

// Wait returns when the record has reached its level, or with the reason why it
// may not have. After an error, that of ctx included, the outcome is unknown
// until the journal was opened again.
func (p Pending) Wait(ctx context.Context) error {
	select {
	case <-p.b.done[p.level]:
		return p.b.failed[p.level]
	default:
	}
	select {
	case <-p.b.done[p.level]:
		return p.b.failed[p.level]
	case <-ctx.Done():
		return fmt.Errorf("wait for record %d: %w", p.Seq, context.Cause(ctx))
	}
}

// Begin starts an epoch: it appends the epoch record, Replicated, and every later
// record carries e. e must be greater than every epoch in the journal, so a
// process that was given up cannot continue where its successor began.
func (j *Journal) Begin(e bulkhead.Epoch, data []byte) (Pending, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := j.stateLocked(); err != nil {
		return Pending{}, err
	}
	if e <= j.epoch {
		return Pending{}, fmt.Errorf("%w: begin %d after %d", ErrEpoch, e, j.epoch)
	}
	if err := j.admitLocked(KindEpoch); err != nil {
		return Pending{}, err
	}
	was := j.epoch
	j.epoch = e
	p, err := j.addLocked(KindEpoch, Replicated, func(dst []byte, _ uint64) []byte { return append(dst, data...) })
	if err != nil {
		j.epoch = was
		return Pending{}, err
	}
	j.began = true
	return p, nil
}

// Append gives the record the next sequence number and queues it. build appends
// the record's data to dst and returns it; it runs under the journal's lock, so
// it must be quick and must not call the journal. Records reach the disk in the
// order of their numbers.
//
// An intent reserves room for one settlement (KindSettle or KindUnknown), which
// is then never refused for lack of space. New work may wait for a quarter of a
// second while a segment is prepared, and fails with ErrLowSpace after that.
func (j *Journal) Append(kind Kind, level Durability, build func(dst []byte, seq uint64) []byte) (Pending, error) {
	if kind == KindEpoch || kind == KindRetention || !kind.valid() {
		return Pending{}, fmt.Errorf("append record: kind %q is not for callers", byte(kind))
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if !j.began {
		return Pending{}, fmt.Errorf("%w: no epoch was begun", ErrEpoch)
	}
	var p Pending
	err := errNoRoom
	for err == errNoRoom { // at most twice: then the space for a longer checkpoint is known
		if err := j.admitLocked(kind); err != nil {
			return Pending{}, err
		}
		p, err = j.addLocked(kind, level, build)
	}
	if err != nil {
		return Pending{}, err
	}
	switch kind {
	case KindIntent:
		j.open++
	case KindSettle, KindUnknown:
		j.open = max(j.open-1, 0)
	case KindCheckpoint:
		j.checkpoint = p.Seq
	}
	j.prepareLocked()
	return p, nil
}

// errNoRoom says that a checkpoint turned out longer than those before it.
var errNoRoom = errors.New("no room for this checkpoint yet")

// addLocked frames the record into the filling batch.
func (j *Journal) addLocked(kind Kind, level Durability, build func(dst []byte, seq uint64) []byte) (Pending, error) {
	b := j.fill
	if level == Replicated && j.cfg.Replicator == nil {
		level = Synced
	}
	start := len(b.plain)
	head := append(b.plain, byte(kind), 0, 0, 0, 0)
	seq := j.seq + 1
	plain := build(head, seq) // should it panic, b is as before
	size := len(plain) - len(head)
	if size < 0 || size > kind.maxData() {
		return Pending{}, fmt.Errorf("%w: %d bytes of kind %c", ErrTooLarge, size, kind)
	}
	cost := bytesFor(len(plain) - start)
	if kind == KindCheckpoint || kind == KindSnapshot {
		cost *= 2 // it may not fit the rest of a segment
		j.longest = max(j.longest, cost/2)
		if j.availableLocked() < j.neededLocked(kind) {
			return Pending{}, errNoRoom
		}
	}
	binary.BigEndian.PutUint32(plain[len(head)-4:], uint32(size))
	if len(b.ends) == 0 {
		b.first = seq
	}
	b.plain, b.ends = plain, append(b.ends, len(plain))
	switch kind {
	case KindCheckpoint:
		b.marks = append(b.marks, mark{index: len(b.ends) - 1, checkpoint: seq})
	case KindRetention:
		b.marks = append(b.marks, mark{index: len(b.ends) - 1, oldest: j.retained})
	case KindEpoch:
		b.marks = append(b.marks, mark{index: len(b.ends) - 1, epoch: j.epoch})
	}
	b.room += cost
	j.queued += cost
	b.sync = b.sync || level >= Synced
	b.copied = b.copied || level == Replicated
	j.seq = seq
	if len(b.ends) == 1 {
		j.wake.Signal()
	}
	return Pending{Seq: seq, b: b, level: level}, nil
}
