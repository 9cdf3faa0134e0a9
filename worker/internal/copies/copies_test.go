package copies

import (
	"errors"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bulkhead-ai/bulkhead/worker/control"
	"go.uber.org/zap"
)

func piece(n uint64) control.Piece {
	return control.Piece{Segment: n, Offset: int64(n) * 512, Data: []byte{byte(n), 1, 2, 3}}
}

func TestOrderAndAcknowledgements(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		s := New(ours, zap.NewNop())
		s.Ship(piece(1)) // before it is started
		var acked atomic.Uint64
		s.Start(acked.Store)
		shared := []byte{2, 1, 2, 3}
		s.Ship(control.Piece{Segment: 2, Offset: 1024, Data: shared})
		clear(shared) // the journal uses it again
		const n = 100
		for i := uint64(3); i <= n; i++ {
			s.Ship(piece(i))
		}
		var buf []byte
		for i := uint64(1); i <= n; i++ {
			var p control.Piece
			var err error
			if p, buf, err = control.ReadPiece(theirs, buf); err != nil || p.Segment != i || p.Data[0] != byte(i) {
				t.Fatalf("piece %d: %+v, %v", i, p, err)
			}
		}
		if err := control.WriteAcked(theirs, 77); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if acked.Load() != 77 {
			t.Errorf("acknowledged %d", acked.Load())
		}
		if err := s.Close(); err != nil || s.Close() != nil {
			t.Error(err)
		}
		if _, _, err := control.ReadPiece(theirs, buf); !errors.Is(err, io.EOF) {
			t.Errorf("after the end: %v", err)
		}
		s.Ship(piece(1)) // goes nowhere
	})
}

// TestCloseSendsWhatIsQueued, but waits for nobody for ever.
func TestCloseSendsWhatIsQueued(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		s := New(ours, zap.NewNop())
		s.Start(func(uint64) {})
		for i := range uint64(5) {
			s.Ship(piece(i + 1))
		}
		closed := make(chan struct{})
		go func() { s.Close(); close(closed) }()
		var buf []byte
		for i := range 5 {
			var err error
			if _, buf, err = control.ReadPiece(theirs, buf); err != nil {
				t.Fatalf("piece %d: %v", i, err)
			}
		}
		<-closed

		ours, _ = net.Pipe()
		s = New(ours, zap.NewNop())
		s.Start(func(uint64) {})
		s.Ship(piece(1))
		start := time.Now()
		s.Close()
		if took := time.Since(start); took != farewell {
			t.Errorf("closed after %v", took)
		}
	})
}

// TestNobodyReads: the writer is never held up, memory is bounded, and the end of
// the stream says that pieces are missing.
func TestNobodyReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		s := New(ours, zap.NewNop())
		s.Start(func(uint64) {})
		start := time.Now()
		big := control.Piece{Segment: 1, Data: make([]byte, control.MaxPiece)}
		for range 3 * maxQueued / control.MaxPiece {
			s.Ship(big)
		}
		if time.Since(start) != 0 {
			t.Error("the writer was held up")
		}
		s.mu.Lock()
		if s.queued > maxQueued || len(s.queue) != 0 {
			t.Errorf("%d bytes in %d pieces are held", s.queued, len(s.queue))
		}
		s.mu.Unlock()
		if n, err := io.Copy(io.Discard, theirs); n > control.MaxPiece+20 || err != nil {
			t.Errorf("%d bytes came, %v", n, err)
		}
		s.Close()
	})
}

// TestSupervisorGone: the shipper ends by itself.
func TestSupervisorGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		s := New(ours, zap.NewNop())
		s.Start(func(uint64) {})
		theirs.Close()
		synctest.Wait()
		s.Ship(piece(1))
		s.mu.Lock()
		if !s.ended || s.queued != 0 {
			t.Error("it goes on")
		}
		s.mu.Unlock()
		s.Close()
	})
}
