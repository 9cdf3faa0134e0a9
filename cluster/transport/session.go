package transport

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/yamux"
	"go.uber.org/zap"
)

const (
	watchEvery = 500 * time.Millisecond
	pingAfter  = 1500 * time.Millisecond // of silence
	deadAfter  = 4 * time.Second         // of silence; with watchEvery, below 5 s
	probeTime  = 1500 * time.Millisecond // for a session that a peer's new dial puts in doubt

	maxStreams = 4096 // that a peer may have open here at a time
	stopBytes  = 4
)

// session is one multiplexed connection with a peer.
type session struct {
	t        *Transport
	peer     string
	instance instance // of the peer
	wire     *wire
	mux      *yamux.Session
	since    time.Time
	rtt      atomic.Int64 // ns, of the latest ping; 0: not known

	slots chan struct{} // one for each stream that is served

	mu     sync.Mutex
	open   map[uint32]*stream
	early  [acceptBacklog]uint32 // stop messages for streams that are not known (yet, or any more)
	earlyN int
	stops  []uint32      // to be told to the peer
	wake   chan struct{} // there are stops; one slot
}

func (t *Transport) newSession(peer string, inst instance, w *wire, dialled bool) (*session, error) {
	s := &session{
		t: t, peer: peer, instance: inst, wire: w, since: time.Now(), slots: make(chan struct{}, maxStreams),
		open: map[uint32]*stream{}, wake: make(chan struct{}, 1),
	}
	begin := yamux.Server
	if dialled {
		begin = yamux.Client
	}
	var err error
	if s.mux, err = begin(w, muxConfig(t.cfg.Log)); err != nil {
		return nil, fmt.Errorf("begin a session: %w", err)
	}
	return s, nil
}

func (s *session) broken() bool { return s.mux.IsClosed() }

func (s *session) close() { _ = s.mux.Close() }

// run serves the session until it breaks, then calls gone, then waits for the
// handlers. Their contexts end with the session.
func (s *session) run(gone func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { s.watch(&running) })
	running.Go(s.sendStops)
	for {
		m, err := s.mux.AcceptStream()
		if err != nil {
			s.t.cfg.Log.Info("session ended", zap.String("peer", s.peer), zap.Error(err))
			break
		}
		running.Go(func() { s.serve(ctx, m) })
	}
	s.close()
	gone()
	cancel()
	running.Wait()
}

// watch pings a silent peer and gives up one that stays silent. Whatever comes
// counts, so that a slow link that is busy is not taken for a dead one.
func (s *session) watch(running *sync.WaitGroup) {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	var pinging atomic.Bool
	for {
		select {
		case <-s.mux.CloseChan():
			return
		case <-tick.C:
		}
		silence := s.wire.silence()
		if silence >= deadAfter {
			s.t.cfg.Log.Warn("peer fell silent", zap.String("peer", s.peer), zap.Duration("for", silence))
			s.close()
			return
		}
		if silence >= pingAfter && pinging.CompareAndSwap(false, true) {
			running.Go(func() {
				defer pinging.Store(false)
				_ = s.ping()
			})
		}
	}
}

func (s *session) ping() error {
	rtt, err := s.mux.Ping()
	if err == nil {
		s.rtt.Store(int64(rtt))
	}
	return err
}

// alive asks the peer for a sign of life.
func (s *session) alive() bool {
	answer := make(chan error, 1)
	if !s.t.spawn(func() { answer <- s.ping() }) {
		return false
	}
	patience := time.NewTimer(probeTime)
	defer patience.Stop()
	select {
	case err := <-answer:
		return err == nil
	case <-patience.C:
		return false
	}
}

// openStream begins a stream for a service.
func (s *session) openStream(service string) (*stream, error) {
	m, err := s.mux.OpenStream()
	if err != nil {
		return nil, fmt.Errorf("open a stream: %w", err)
	}
	c := &stream{s: s, mux: m, verdictDue: true, ended: func() {}}
	s.register(c)
	if _, err := c.Write(appendPreface(nil, service)); err != nil {
		return nil, errors.Join(fmt.Errorf("open a stream: %w", err), c.Close())
	}
	return c, nil
}

// serve reads what a stream is for and hands it to the service.
func (s *session) serve(ctx context.Context, m *yamux.Stream) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c := &stream{s: s, mux: m, ended: cancel}
	defer func() { _ = c.Close() }()
	if s.register(c) {
		c.stopByPeer()
	}
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	default:
		_, _ = c.Write([]byte{streamBusy})
		return
	}
	_ = c.SetReadDeadline(time.Now().Add(handshakeTimeout))
	service, err := readPreface(c)
	if err != nil {
		s.t.cfg.Log.Debug("stream without a service", zap.String("peer", s.peer), zap.Error(err))
		return
	}
	_ = c.SetReadDeadline(time.Time{})
	if service == stopService {
		s.receiveStops(c)
		return
	}
	h := s.t.handlers.stream(service)
	if h == nil {
		_, _ = c.Write([]byte{streamUnknown})
		return
	}
	// Who has closed the stream already may still have sent something.
	if _, err := c.Write([]byte{streamAccepted}); err != nil && !errors.Is(err, ErrPeerClosed) {
		return
	}
	h(ctx, s.peer, c)
}

// register notes a stream for stop messages; it answers whether one has come
// already.
func (s *session) register(c *stream) (stopped bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := c.mux.StreamID()
	s.open[id] = c
	return slices.Contains(s.early[:], id)
}

func (s *session) forget(c *stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, c.mux.StreamID())
}

// stop tells the peer that nobody reads a stream here any more. yamux's own end
// of stream says only that nothing more will be written.
func (s *session) stop(c *stream) {
	s.mu.Lock()
	s.stops = append(s.stops, c.mux.StreamID())
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// sendStops opens its stream at once, so that it is among the first and finds
// room.
func (s *session) sendStops() {
	c, err := s.openStream(stopService)
	for err == nil {
		select {
		case <-s.mux.CloseChan():
			return
		case <-s.wake:
		}
		_, err = c.Write(s.takeStops())
	}
	s.close()
}

func (s *session) takeStops() (msg []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range s.stops {
		msg = binary.BigEndian.AppendUint32(msg, id)
	}
	s.stops = s.stops[:0]
	return msg
}

func (s *session) receiveStops(r io.Reader) {
	var msg [stopBytes]byte
	for {
		if _, err := io.ReadFull(r, msg[:]); err != nil {
			return
		}
		if c := s.stopped(binary.BigEndian.Uint32(msg[:])); c != nil {
			c.stopByPeer()
		}
	}
}

// stopped finds the stream of a stop message. One that is not known was closed
// here, or is among the acceptBacklog at most that wait to be accepted.
func (s *session) stopped(id uint32) *stream {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.open[id]; c != nil {
		return c
	}
	s.early[s.earlyN%len(s.early)] = id
	s.earlyN++
	return nil
}
