package replica

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"go.uber.org/zap"
)

const (
	streamBuffer  = 64 << 10
	answerTimeout = 20 * time.Second // for a peer that does not read its answers
	helloTimeout  = 10 * time.Second
)

// session is one stream from an asker.
type session struct {
	k     *Keeper
	conn  net.Conn
	r     *bufio.Reader
	buf   []byte
	out   []byte
	hello hello
	book  *book
	open  bool   // Seal was answered; the book counts the session as a user
	owed  bool   // appended and not yet acknowledged
	knows int    // book.suspicions when Seal was answered
	read  walker // for Fetch: where the last one ended
}

// HandleStream serves one stream of another node until it ends. It is the
// handler of the mux service "replica".
func (k *Keeper) HandleStream(ctx context.Context, peer string, conn net.Conn) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	leave, err := k.enter(conn, cancel)
	if err != nil {
		conn.Close()
		return
	}
	defer leave()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	s := &session{k: k, conn: conn, r: bufio.NewReaderSize(conn, streamBuffer)}
	err = s.serve(ctx)
	s.end()
	if err == nil || errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) || errors.Is(err, io.ErrClosedPipe) {
		return
	}
	k.log.Info("replica stream ended", zap.String("peer", peer), zap.String("tenant", string(s.hello.tenant)), zap.Error(err))
	epoch := s.hello.epoch
	if s.book != nil {
		s.book.mu.Lock()
		epoch = s.book.promise.epoch
		s.book.mu.Unlock()
	}
	s.write(&frame{typ: typeError, refusal: refuse(err, epoch)})
}

func (s *session) serve(ctx context.Context) error {
	if err := s.greet(); err != nil {
		return err
	}
	for {
		f, err := s.next()
		if err != nil {
			return err
		}
		if s.owed && f.typ != typeAppend {
			if err := s.acknowledge(); err != nil {
				return err
			}
		}
		if f.typ == typeAppend {
			if err := s.book.bucket.take(ctx, len(f.run.data)); err != nil {
				return err
			}
		}
		answer, err := s.handle(ctx, &f)
		if err != nil {
			return err
		}
		if s.owed && !s.moreWaits() {
			err = s.acknowledge()
		} else if answer != nil {
			err = s.write(answer)
		}
		if err != nil {
			return err
		}
	}
}

func (s *session) next() (f frame, err error) {
	f, s.buf, err = readFrame(s.r, s.buf)
	return f, err
}

// moreWaits reports whether another whole frame has arrived: what it carries can
// share the sync of the one before.
func (s *session) moreWaits() bool {
	if s.r.Buffered() < 4 {
		return false
	}
	head, err := s.r.Peek(4)
	return err == nil && uint64(s.r.Buffered()) >= 4+uint64(binary.BigEndian.Uint32(head))
}

// greet takes the Hello.
func (s *session) greet() error {
	if err := s.conn.SetReadDeadline(time.Now().Add(helloTimeout)); err != nil {
		return err
	}
	f, err := s.next()
	if err != nil {
		return err
	}
	if f.typ != typeHello {
		return fmt.Errorf("%w: frame of type %d before Hello", ErrProtocol, f.typ)
	}
	s.hello = f.hello
	if f.hello.receiver != s.k.receiver {
		return fmt.Errorf("%w: this is %s", ErrReceiver, s.k.receiver)
	}
	if s.book, err = s.k.book(f.hello.tenant); err != nil {
		return err
	}
	return s.conn.SetReadDeadline(time.Time{})
}

// handle does what a frame asks. Every frame is checked against the promise
// under the same lock under which it is done.
func (s *session) handle(ctx context.Context, f *frame) (*frame, error) {
	b := s.book
	b.mu.Lock()
	defer b.mu.Unlock()
	if f.typ == typeSeal {
		return s.seal(ctx, f)
	}
	if !s.open {
		return nil, fmt.Errorf("%w: frame of type %d before Seal", ErrProtocol, f.typ)
	}
	if b.poison != nil {
		return nil, b.poison
	}
	if s.hello.epoch < b.promise.epoch {
		return nil, fmt.Errorf("%w: %d is promised, %d asks", ErrFenced, b.promise.epoch, s.hello.epoch)
	}
	if s.knows != b.suspicions {
		return nil, fmt.Errorf("%w: found since the stream began", ErrDamaged)
	}
	if err := b.open(); err != nil {
		return nil, b.note(err)
	}
	switch f.typ {
	case typeAppend:
		s.owed = true
		return nil, b.note(b.j.append(f.run, s.hello.epoch))
	case typeAsk:
		p, err := b.j.pointAt(f.seq)
		return &frame{typ: typePoint, seq: f.seq, point: p}, b.note(err)
	case typeFetch:
		r, err := s.fetch(f.point)
		return &frame{typ: typeRun, run: r}, b.note(err)
	case typeTruncate:
		return s.positionAfter(b.cut(f.truncate))
	case typeWhole:
		return s.positionAfter(b.whole(f.seq))
	}
	return nil, fmt.Errorf("%w: frame of type %d", ErrProtocol, f.typ)
}

// seal promises the stream's epoch and answers where the copy ends.
func (s *session) seal(ctx context.Context, f *frame) (*frame, error) {
	if f.epoch != s.hello.epoch {
		return nil, fmt.Errorf("%w: Seal of epoch %d in a stream of %d", ErrProtocol, f.epoch, s.hello.epoch)
	}
	if err := s.book.raise(ctx, f.epoch); err != nil {
		return nil, err
	}
	answer, err := s.positionAfter(nil)
	if err == nil && !s.open {
		s.open, s.knows = true, s.book.suspicions
		s.book.users++
		s.book.streams[s.conn] = struct{}{}
	}
	return answer, err
}

func (s *session) positionAfter(err error) (*frame, error) {
	if err != nil {
		return nil, err
	}
	pos, err := s.book.position()
	return &frame{typ: typePosition, position: pos}, err
}

// fetch reads what follows p.
func (s *session) fetch(p Point) (run, error) {
	s.read.dir = s.book.dir
	if s.read.f == nil || s.read.at != p {
		if err := s.read.seek(p); err != nil {
			return run{}, err
		}
	}
	return s.read.next(s.book.j.head.Seq, maxRun-maxRun/4)
}

// acknowledge syncs what was appended and says so.
func (s *session) acknowledge() error {
	s.owed = false
	b := s.book
	b.mu.Lock()
	err := b.poison
	if err == nil && s.hello.epoch < b.promise.epoch {
		err = fmt.Errorf("%w: %d is promised", ErrFenced, b.promise.epoch)
	}
	var seq uint64
	if err == nil && b.j == nil {
		err = ErrBusy
	}
	if err == nil {
		err = b.note(b.j.sync())
	}
	if err == nil {
		seq = b.j.head.Seq
		if errors.Is(b.trouble, ErrLowSpace) {
			b.trouble = nil
		}
	}
	b.mu.Unlock()
	if err != nil {
		return err
	}
	return s.write(&frame{typ: typeAcked, seq: seq})
}

func (s *session) write(f *frame) error {
	if err := s.conn.SetWriteDeadline(time.Now().Add(answerTimeout)); err != nil {
		return err
	}
	s.out = f.appendTo(s.out[:0])
	_, err := s.conn.Write(s.out)
	return err
}

// end leaves the copy; the last one closes it.
func (s *session) end() {
	if !s.open {
		return
	}
	b := s.book
	b.mu.Lock()
	defer b.mu.Unlock()
	s.read.Close()
	delete(b.streams, s.conn)
	if b.users--; b.users == 0 && b.poison == nil {
		if b.j != nil {
			b.note(b.j.sync())
		}
		if err := b.shut(); err != nil {
			s.k.log.Warn("close a tenant's copy", zap.String("tenant", string(b.tenant)), zap.Error(err))
		}
	}
}
