package replica

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
)

// callTimeout bounds one question to a keeper, which may have to end a worker or
// to read a segment before it answers.
const callTimeout = 20 * time.Second

// link is a stream to the keeper of another node, for one tenant and epoch. It
// is not safe for concurrent use.
type link struct {
	to   command.Replica
	conn net.Conn
	r    *bufio.Reader
	buf  []byte
	out  []byte
}

// dial opens a stream and seals the copy with the epoch.
func (k *Keeper) dial(ctx context.Context, to command.Replica, tenant bulkhead.TenantID, epoch bulkhead.Epoch) (*link, Position, error) {
	conn, err := k.cfg.Open(ctx, to.Node)
	if err != nil {
		return nil, Position{}, fmt.Errorf("reach node %s: %w", to.Node, err)
	}
	l := &link{to: to, conn: conn, r: bufio.NewReader(conn)}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	pos, err := l.begin(tenant, epoch)
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		conn.Close()
		return nil, Position{}, err
	}
	return l, pos, nil
}

func (l *link) begin(tenant bulkhead.TenantID, epoch bulkhead.Epoch) (Position, error) {
	if err := l.send(&frame{typ: typeHello, hello: hello{tenant, epoch, l.to.Receiver}}); err != nil {
		return Position{}, err
	}
	f, err := l.call(&frame{typ: typeSeal, epoch: epoch}, typePosition)
	if err == nil && f.position.Receiver != l.to.Receiver {
		err = fmt.Errorf("node %s: %w: %s", l.to.Node, ErrReceiver, f.position.Receiver)
	}
	return f.position, err
}

func (l *link) send(f *frame) error {
	if err := l.conn.SetWriteDeadline(time.Now().Add(callTimeout)); err != nil {
		return fmt.Errorf("node %s: %w", l.to.Node, err)
	}
	l.out = f.appendTo(l.out[:0])
	if _, err := l.conn.Write(l.out); err != nil {
		return fmt.Errorf("send to node %s: %w", l.to.Node, err)
	}
	return nil
}

// receive takes the next frame; an error frame is returned as the error that it
// tells of.
func (l *link) receive() (frame, error) {
	f, buf, err := readFrame(l.r, l.buf)
	l.buf = buf
	if err == nil && f.typ == typeError {
		err = f.refusal
	}
	if err != nil {
		return frame{}, fmt.Errorf("node %s: %w", l.to.Node, err)
	}
	return f, nil
}

// call asks and waits for the answer, whose data is valid until the next one.
func (l *link) call(f *frame, want frameType) (frame, error) {
	if err := l.send(f); err != nil {
		return frame{}, l.explain(err)
	}
	if err := l.conn.SetReadDeadline(time.Now().Add(callTimeout)); err != nil {
		return frame{}, fmt.Errorf("node %s: %w", l.to.Node, err)
	}
	answer, err := l.receive()
	if err == nil && answer.typ != want {
		err = fmt.Errorf("node %s: %w: answers with frame %d", l.to.Node, ErrProtocol, answer.typ)
	}
	return answer, err
}

// explain prefers the reason that the peer gave before it hung up to the error
// of writing to it.
func (l *link) explain(err error) error {
	if l.conn.SetReadDeadline(time.Now().Add(time.Second)) == nil {
		if _, why := l.receive(); why != nil {
			return why
		}
	}
	return err
}

// ask is the last group end of the peer's copy at or before seq.
func (l *link) ask(seq uint64) (Point, error) {
	f, err := l.call(&frame{typ: typeAsk, seq: seq}, typePoint)
	if err == nil && f.seq != seq {
		err = fmt.Errorf("node %s: %w: answers for record %d, not %d", l.to.Node, ErrProtocol, f.seq, seq)
	}
	return f.point, err
}

// cut makes the peer's copy end elsewhere.
func (l *link) cut(t truncation) (Position, error) {
	f, err := l.call(&frame{typ: typeTruncate, truncate: t}, typePosition)
	return f.position, err
}

func (l *link) Close() error { return l.conn.Close() }

// extent is what a copy holds.
type extent struct{ base, head Point }

func (p *Position) extent() extent { return extent{p.Base, p.Point} }

// common finds the last point that the local journal and the peer's copy both
// pass through. found is false when there is none within what both keep.
func common(local *walker, here extent, l *link, there extent) (at Point, found bool, err error) {
	lo, hi := max(here.base.Seq, there.base.Seq), min(here.head.Seq, there.head.Seq)
	if lo > hi {
		return Point{}, false, nil
	}
	same := func(seq uint64) (Point, bool, error) {
		p, err := l.ask(seq)
		if err != nil {
			return Point{}, false, err
		}
		if p.Seq <= here.base.Seq { // nothing to read, and maybe nothing that can be read
			return p, p == here.base, nil
		}
		q, err := local.lastPoint(p.Seq)
		return p, p == q, err
	}
	if p, is, err := same(hi); err != nil || is {
		return p, is, err
	}
	if at, found, err = same(lo); err != nil || !found {
		return Point{}, false, err
	}
	for hi-lo > 1 {
		mid := lo + (hi-lo)/2
		p, is, err := same(mid)
		switch {
		case err != nil:
			return Point{}, false, err
		case p.Seq <= lo:
			lo = mid
		case is:
			at, lo = p, mid
		default:
			hi = p.Seq
		}
	}
	return at, true, nil
}
