package journal

import (
	"github.com/bulkhead-ai/bulkhead/worker/control"
	"github.com/bulkhead-ai/bulkhead/worker/sealed"
)

// ship hands what was just written at off to the replicator. The first group of
// a segment goes with the segment's header: they are one piece.
func (j *Journal) ship(off int64, data []byte) {
	if j.cfg.Replicator == nil {
		return
	}
	w := &j.writer
	if off == sealed.SectorSize {
		off, data = 0, append(w.header.Append(nil, j.keys.sign), data...)
	}
	j.cfg.Replicator.Ship(control.Piece{Segment: w.header.First, Offset: off, Data: data})
}

// Acked is the replicator's word that enough other copies hold every record up
// to seq, under the epoch in force. It counts for this opening of the journal: what
// was found on disk has to be acknowledged again.
func (j *Journal) Acked(seq uint64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.acked = max(j.acked, min(seq, j.seq))
	n := 0
	for n < len(j.unacked) && j.unacked[n].last <= j.acked {
		j.unacked[n].finish(Replicated, nil)
		n++
	}
	j.unacked = append(j.unacked[:0], j.unacked[n:]...)
	clear(j.unacked[len(j.unacked):cap(j.unacked)])
}

// confirm completes b, which is synced, once the copies have it too.
func (j *Journal) confirm(b *batch) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if b.last <= j.acked {
		b.finish(Replicated, nil)
		return
	}
	j.unacked = append(j.unacked, b)
}

// giveUpLocked ends the wait for copies.
func (j *Journal) giveUpLocked(reason error) {
	for _, b := range j.unacked {
		b.finish(Replicated, reason)
	}
	j.unacked = nil
}

// confirmedLocked is the last record that is Replicated.
func (j *Journal) confirmedLocked() uint64 {
	if j.cfg.Replicator == nil {
		return j.durable.seq
	}
	return min(j.durable.seq, j.acked)
}

// Confirmed is the part of a journal that is Replicated: no take-over by another
// node can cut it off. Without copies it is what is durable.
type Confirmed struct{ j *Journal }

// Confirmed answers the journal's replicated part. It grows with the journal.
func (j *Journal) Confirmed() Confirmed { return Confirmed{j} }

// Cursor is Journal.Cursor over the replicated part.
func (c Confirmed) Cursor(from uint64) *Cursor { return &Cursor{j: c.j, seq: from, safe: true} }

// Head is its last record, and the chain hash after it where that is the
// journal's last durable record; else a zero hash.
func (c Confirmed) Head() (seq uint64, hash [32]byte) {
	c.j.mu.Lock()
	defer c.j.mu.Unlock()
	seq = c.j.confirmedLocked()
	if seq == c.j.durable.seq {
		hash = c.j.durable.hash
	}
	return seq, hash
}

// Oldest is the first record that the journal still holds.
func (c Confirmed) Oldest() uint64 { return c.j.Oldest() }
