// Package copies carries what a worker's journal writes to its supervisor, which
// feeds the copies on other nodes, and tells the journal what those have.
//
// It guarantees: pieces go out in the order of writing and none is left out; the
// journal's writer never waits for the supervisor, nor for a copy; memory is
// bounded. A supervisor that stops reading costs the connection: it is closed when
// the bound is reached, nothing is acknowledged any more, and the journal goes on
// alone.
package copies

import (
	"errors"
	"io"
	"sync"
	"time"

	"github.com/bulkhead-ai/bulkhead/worker/control"
	"go.uber.org/zap"
)

const (
	// maxQueued bounds the pieces that wait for the supervisor, in bytes. While it
	// reads they are milliseconds of writing.
	maxQueued = 16 << 20
	// farewell bounds how long Close waits for what is queued to go out.
	farewell = time.Second
)

// Shipper sends pieces over the replication socket. Ship and Close may be called
// concurrently.
type Shipper struct {
	conn io.ReadWriteCloser
	log  *zap.Logger

	mu     sync.Mutex
	wake   sync.Cond // sender: queue has something, or ended
	queue  []control.Piece
	free   [][]byte // to use again
	queued int      // bytes
	ended  bool     // nothing is taken any more

	sender, reader sync.WaitGroup
	close          sync.Once
}

// ErrFull says that the supervisor has not read for too long.
var ErrFull = errors.New("supervisor does not read what the journal writes")

// New makes a shipper on conn, which it owns. Pieces wait until Start.
func New(conn io.ReadWriteCloser, log *zap.Logger) *Shipper {
	s := &Shipper{conn: conn, log: log}
	s.wake.L = &s.mu
	return s
}

// Start begins to send. acked is called, by one goroutine, with every record
// number up to which enough copies have everything.
func (s *Shipper) Start(acked func(seq uint64)) {
	s.sender.Go(s.send)
	s.reader.Go(func() {
		for {
			seq, err := control.ReadAcked(s.conn)
			if err != nil {
				s.end(err)
				return
			}
			acked(seq)
		}
	})
}

// Ship implements journal.Replicator: it copies the piece and returns.
func (s *Shipper) Ship(p control.Piece) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return
	}
	if s.queued+len(p.Data) > maxQueued {
		s.endLocked(ErrFull)
		return
	}
	var buf []byte
	if n := len(s.free); n > 0 {
		buf, s.free = s.free[n-1], s.free[:n-1]
	}
	p.Data = append(buf[:0], p.Data...)
	s.queued += len(p.Data)
	s.queue = append(s.queue, p)
	s.wake.Signal()
}

// send writes what is queued until the end.
func (s *Shipper) send() {
	var buf []byte
	for {
		p, ok := s.next()
		if !ok {
			return
		}
		var err error
		if buf, err = control.WritePiece(s.conn, p, buf); err != nil {
			s.end(err)
			return
		}
		s.done(p)
	}
}

// next waits for a piece; there is none after the end but what was queued then.
func (s *Shipper) next() (control.Piece, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.queue) == 0 {
		if s.ended {
			return control.Piece{}, false
		}
		s.wake.Wait()
	}
	p := s.queue[0]
	s.queue[0] = control.Piece{}
	if s.queue = s.queue[1:]; len(s.queue) == 0 {
		s.queue = nil
	}
	return p, true
}

// done gives the memory of a piece back.
func (s *Shipper) done(p control.Piece) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queued -= len(p.Data)
	const keep, longest = 4, 64 << 10
	if len(s.free) < keep && cap(p.Data) <= longest {
		s.free = append(s.free, p.Data)
	}
}

// end drops what is queued and closes the connection: whoever reads there learns
// that pieces are missing by the end of the stream.
func (s *Shipper) end(reason error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.endLocked(reason)
}

func (s *Shipper) endLocked(reason error) {
	if s.ended {
		return
	}
	s.ended, s.queue = true, nil
	s.wake.Signal()
	s.conn.Close()
	if !errors.Is(reason, io.EOF) { // the supervisor's own end is no news
		s.log.Error("copies of the journal are not fed any more", zap.Error(reason))
	}
}

// Close sends what is queued, as far as the supervisor takes it at once, closes
// the connection and waits for the goroutines. It is idempotent.
func (s *Shipper) Close() error {
	s.close.Do(func() {
		s.mu.Lock()
		s.ended = true
		s.wake.Signal()
		s.mu.Unlock()
		late := time.AfterFunc(farewell, func() { s.conn.Close() })
		s.sender.Wait()
		late.Stop()
		s.conn.Close() // again, where something has ended it: no matter
		s.reader.Wait()
	})
	return nil
}
