package replica

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/bulkhead-ai/bulkhead/cluster/command"
)

const (
	retryFirst    = 50 * time.Millisecond
	retryMost     = time.Second
	retryReceiver = 5 * time.Second // a disk that is gone does not come back soon
	windowBytes   = 2 << 20         // sent to a peer and not yet acknowledged
	stallTimeout  = 20 * time.Second
	rereadAfter   = 20 * time.Millisecond
)

// peer is one other copy as its owner sees it.
type peer struct {
	o      *owner
	to     command.Replica
	cancel context.CancelFunc
	wake   chan struct{} // something to send, or an acknowledgement

	// Guarded by o.mu.
	connected bool
	counted   bool   // acked may be counted: the copy is not in repair
	acked     uint64 // it holds everything up to here, under this epoch
	sent      []sent // not yet acknowledged
	sentSeq   uint64
	inFlight  int
	asked     bool // Whole was sent
	heard     time.Time
	err       error // why it is not connected
}

type sent struct {
	last  uint64
	bytes int
}

func (p *peer) nudge() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// feed keeps the copy up to date until ctx ends.
func (p *peer) feed(ctx context.Context) {
	wait := retryFirst
	for ctx.Err() == nil {
		began := time.Now()
		err := p.session(ctx)
		p.o.mu.Lock()
		p.connected, p.err = false, err
		p.o.mu.Unlock()
		if errors.Is(err, ErrFenced) && ctx.Err() == nil {
			p.o.stop(err)
			return
		}
		switch {
		case errors.Is(err, ErrReceiver):
			wait = retryReceiver
		case time.Since(began) > retryMost:
			wait = retryFirst
		default:
			wait = min(wait*2, retryMost)
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
		}
	}
}

// session feeds the copy over one stream.
func (p *peer) session(ctx context.Context) error {
	o := p.o
	l, pos, err := o.k.dial(ctx, p.to, o.cfg.Tenant, o.cfg.Epoch)
	if err != nil {
		return err
	}
	defer l.Close()
	defer context.AfterFunc(ctx, func() { l.Close() })()
	dir, err := o.openDir()
	if err != nil {
		return err
	}
	defer dir.Close()
	w := &walker{dir: dir}
	defer w.Close()
	pos, err = p.align(ctx, l, pos, w)
	if err != nil {
		return err
	}
	p.begin(pos)
	if err := l.conn.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	o.tasks.Go(func() {
		err := p.listen(l)
		cancel(err)
		l.Close()
	})
	err = p.push(ctx, l, w, pos.Point)
	if cause := context.Cause(ctx); cause != nil {
		err = cause // what the peer said before it hung up
	}
	return err
}

// begin notes where the copy stands: on this journal's history, at pos.
func (p *peer) begin(pos Position) {
	p.o.mu.Lock()
	defer p.o.mu.Unlock()
	p.connected, p.err = true, nil
	p.counted, p.asked = pos.counts(), false
	p.acked, p.sentSeq = pos.Seq, pos.Seq
	p.sent, p.inFlight = nil, 0
	p.o.commitLocked()
	p.o.changedLocked()
}

// align makes the copy end at a point of this journal. A copy is cut only after
// the epoch has begun: from then on what it has beyond the point is history that
// this journal contradicts.
func (p *peer) align(ctx context.Context, l *link, pos Position, w *walker) (Position, error) {
	base, err := w.lastPoint(0)
	if err != nil {
		return pos, p.ownFault(err)
	}
	p.o.mu.Lock()
	head := p.o.head
	p.o.mu.Unlock()
	at, found, err := common(w, extent{base, head}, l, pos.extent())
	if err != nil || found && at == pos.Point && !pos.Damaged {
		return pos, err
	}
	if err := p.waitEpoch(ctx); err != nil {
		return pos, err
	}
	t := truncation{from: pos.Point, to: at}
	if !found || pos.Damaged && at.Seq == 0 {
		t.to, t.reset = base, true
	}
	pos, err = l.cut(t)
	if err == nil && (pos.Point != t.to || pos.Damaged) {
		err = fmt.Errorf("node %s: %w: its copy ends at record %d after it was cut to %d", p.to.Node, ErrPosition, pos.Seq, t.to.Seq)
	}
	return pos, err
}

// ownFault looks whether it is this node's copy that cannot be read.
func (p *peer) ownFault(err error) error {
	if errors.Is(err, ErrDamaged) {
		p.o.b.doubt(p.o, err)
	}
	return err
}

func (p *peer) waitEpoch(ctx context.Context) error {
	for {
		p.o.mu.Lock()
		began, changed := p.o.first > 0, p.o.changed
		p.o.mu.Unlock()
		if began {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// push sends what the copy lacks, and then what comes.
func (p *peer) push(ctx context.Context, l *link, w *walker, at Point) error {
	for {
		f, next, more := p.fromMemory(at)
		if f == nil && more {
			var err error
			if f, next, err = p.fromFiles(w, at); err != nil {
				return p.ownFault(fmt.Errorf("read own journal behind record %d: %w", at.Seq, err))
			}
		}
		if f == nil {
			if err := p.wait(ctx, more); err != nil {
				return err
			}
			continue
		}
		if err := l.send(f); err != nil {
			return err
		}
		at = next
	}
}

// fromMemory is the next frame to send to a copy that ends at at. more says that
// there is something which only the files have.
func (p *peer) fromMemory(at Point) (f *frame, next Point, more bool) {
	o := p.o
	o.mu.Lock()
	defer o.mu.Unlock()
	if !p.counted && !p.asked && o.first > 0 && p.acked >= max(o.first, o.committed) {
		p.asked = true
		return &frame{typ: typeWhole, seq: p.acked}, at, false
	}
	if at == o.head || p.inFlight >= windowBytes {
		return nil, at, false
	}
	i, found := slices.BinarySearchFunc(o.recent, at.Seq, func(r run, seq uint64) int { return cmp.Compare(r.prev.Seq, seq) })
	if !found || o.recent[i].prev != at {
		return nil, at, true
	}
	next = o.head
	if i+1 < len(o.recent) {
		next = o.recent[i+1].prev
	}
	p.sendingLocked(next.Seq, len(o.recent[i].data))
	f = &frame{typ: typeAppend, run: o.recent[i]}
	f.run.committed = o.committed
	return f, next, false
}

func (p *peer) sendingLocked(last uint64, bytes int) {
	if p.inFlight == 0 {
		p.heard = time.Now()
	}
	p.sent = append(p.sent, sent{last, bytes})
	p.sentSeq = last
	p.inFlight += bytes
}

// fromFiles reads the next frame from this node's own files. None: the worker
// has told of a group that is not there yet.
func (p *peer) fromFiles(w *walker, at Point) (*frame, Point, error) {
	if w.f == nil || w.at != at {
		if err := w.seek(at); err != nil {
			return nil, at, err
		}
	}
	p.o.mu.Lock()
	limit, newest := p.o.head.Seq, p.o.newest
	p.o.mu.Unlock()
	r, err := w.next(limit, maxRun-maxRun/4)
	if err == nil && len(r.data) == 0 && w.h.First < newest {
		err = fmt.Errorf("%w: segment of record %d does not reach the next one", ErrDamaged, w.h.First)
	}
	if err != nil || len(r.data) == 0 {
		return nil, at, err
	}
	p.o.mu.Lock()
	defer p.o.mu.Unlock()
	p.sendingLocked(w.at.Seq, len(r.data))
	r.committed = p.o.committed
	return &frame{typ: typeAppend, run: r}, w.at, nil
}

// wait returns when there may be something to do.
func (p *peer) wait(ctx context.Context, soon bool) error {
	p.o.mu.Lock()
	waiting, heard := p.inFlight > 0, p.heard
	p.o.mu.Unlock()
	var late <-chan time.Time
	if soon || waiting {
		d := stallTimeout
		if soon {
			d = rereadAfter
		}
		timer := time.NewTimer(d)
		defer timer.Stop()
		late = timer.C
	}
	select {
	case <-p.wake:
	case <-late:
		if waiting && time.Since(heard) >= stallTimeout {
			return fmt.Errorf("node %s does not acknowledge", p.to.Node)
		}
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return nil
}

// listen takes what the copy answers until the stream ends.
func (p *peer) listen(l *link) error {
	for {
		f, err := l.receive()
		if err == nil {
			err = p.heed(&f)
		}
		if err != nil {
			return err
		}
		p.nudge()
	}
}

func (p *peer) heed(f *frame) error {
	o := p.o
	o.mu.Lock()
	defer o.mu.Unlock()
	switch f.typ {
	case typeAcked:
		if f.seq > p.sentSeq {
			return fmt.Errorf("node %s: %w: acknowledges record %d, %d was sent", p.to.Node, ErrProtocol, f.seq, p.sentSeq)
		}
		n := 0
		for ; n < len(p.sent) && p.sent[n].last <= f.seq; n++ {
			p.inFlight -= p.sent[n].bytes
		}
		p.sent = p.sent[n:]
		p.acked, p.heard = max(p.acked, f.seq), time.Now()
	case typePosition:
		if !p.asked || !f.position.counts() {
			return fmt.Errorf("node %s: %w: a position that nobody asked for", p.to.Node, ErrProtocol)
		}
		p.counted = true
	default:
		return fmt.Errorf("node %s: %w: frame of type %d", p.to.Node, ErrProtocol, f.typ)
	}
	o.commitLocked()
	o.changedLocked()
	return nil
}
