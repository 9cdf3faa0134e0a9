package replica

import (
	"fmt"
	"sync"

	"github.com/bulkhead-ai/bulkhead"
)

// simWorker writes numbers on a node of the simulator.
type simWorker struct {
	n       *simNode
	epoch   bulkhead.Epoch
	pen     *penman
	sock    *pieceSocket
	updates chan Replicas
	mu      sync.Mutex
	held    uint64 // told by Own
	counted uint64 // checked up to here
	mine    map[uint64]record
	gone    bool
}

func (w *simWorker) kill() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.gone {
		return
	}
	w.gone = true
	w.sock.Close()
	w.pen.Close()
}

// write appends a group of n records.
func (s *sim) write(w *simWorker, n int) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.gone {
		return nil
	}
	var ids []uint64
	first := w.pen.j.head.Seq + 1
	for i := range n {
		s.id++
		ids = append(ids, s.id)
		w.mine[first+uint64(i)] = record{w.epoch, s.id}
	}
	if s.rng.IntN(16) == 0 && s.ackedMax > 0 { // retention: only what was acknowledged, whole segments
		for _, h := range w.pen.j.segs[1:] {
			if h.First > w.pen.oldest && h.First <= s.ackedMax && s.rng.IntN(2) == 0 {
				w.pen.oldest = h.First
			}
		}
	}
	w.pen.held = w.held
	if err := w.pen.write(ids, s.rng.IntN(1500)); err != nil {
		return fmt.Errorf("worker of epoch %d: %w", w.epoch, err)
	}
	return nil
}

// check counts what the workers may acknowledge now.
func (s *sim) check() error {
	for _, w := range s.workers {
		w.mu.Lock()
		upTo := min(w.pen.synced, w.held)
		if s.mutant == acksByOne {
			upTo = w.pen.synced
		}
		if w.gone {
			upTo = 0
		}
		w.mu.Unlock()
		for ; w.counted < upTo; w.counted++ {
			seq := w.counted + 1
			r, ok := w.mine[seq]
			if !ok {
				continue // of an older epoch: acknowledged then or never
			}
			if old, ok := s.acked[seq]; ok && old != r {
				return lossf("two acknowledged records %d: of epochs %d and %d", seq, old.epoch, r.epoch)
			}
			for _, t := range s.logs {
				if t.epoch > r.epoch && seq > t.base.Seq && t.records[seq] != r {
					return lossf("record %d of epoch %d was acknowledged after epoch %d had begun on %s without it", seq, r.epoch, t.epoch, t.node.id)
				}
			}
			s.acked[seq] = r
			s.records++
			s.ackedMax = max(s.ackedMax, seq)
		}
	}
	return nil
}
