package tenants

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/egress"
	"github.com/bulkhead-ai/bulkhead/worker/control"
	"go.uber.org/zap"
)

// How long the parts of a worker's end may take.
const (
	exitSlack    = 2 * time.Second        // from the last message to the end of the process, and back
	bookSlack    = 2 * time.Second        // booking what came before the end
	logSlack     = 500 * time.Millisecond // reading the log to its end
	maxFatalText = 512                    // bytes of a worker's own reason that are shown
)

// worker is one process and the conversation with it. One goroutine (handshake,
// then loop) owns the conversation; what others may touch is under mu.
type worker struct {
	id      bulkhead.TenantID
	env     *launchEnv
	log     *zap.Logger
	process Process
	ch      *channels
	plugins *pluginHost
	begun   func(bulkhead.Epoch)
	helpers sync.WaitGroup // reader, log, egress, booker, copies

	lifetime context.Context // of egress and copies: the process's, not a request's
	cancel   context.CancelFunc

	frames  chan frame
	readErr error       // why frames was closed
	batches chan []byte // to the booker
	failed  chan error  // from booker and egress: the worker has to go
	stop    chan struct{}

	policy    func() (control.Policy, error) // of the present state; sets the egress allow-list
	sentRev   uint64
	drainSent bool
	drained   bool

	ended  chan struct{}
	endErr error // valid once ended is closed

	kick chan struct{} // the loop looks at what follows
	mu   sync.Mutex
	want struct { // set by drain
		drain bool
		by    time.Time
		in    time.Duration
	}
	facts   processInfo
	changed chan struct{} // closed and replaced when facts.rev grows
	booked  bool          // everything received so far is in the ledger
}

type frame struct {
	kind    control.Type
	payload []byte
}

// protocolError says that a worker sent what it may not send.
type protocolError struct{ what string }

func (e *protocolError) Error() string { return "worker broke the protocol: " + e.what }

func (w *worker) done() <-chan struct{} { return w.ended }

func (w *worker) err() error { return w.endErr }

func (w *worker) info() processInfo {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.facts
}

// drain implements process; it only leaves a note, since its caller holds the
// tenant's lock.
func (w *worker) drain(timeout time.Duration) {
	w.mu.Lock()
	by := time.Now().Add(timeout)
	if !w.want.drain || by.Before(w.want.by) {
		w.want.drain, w.want.by, w.want.in = true, by, timeout
	}
	w.mu.Unlock()
	w.sync()
}

// kill implements process.
func (w *worker) kill() { w.process.Kill() }

// sync makes the loop look at the policy and at what drain left.
func (w *worker) sync() {
	select {
	case w.kick <- struct{}{}:
	default: // it will look anyway
	}
}

// applied answers the policy that the worker enforces, and what is closed when
// that grows.
func (w *worker) applied() (uint64, <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.facts.rev, w.changed
}

func (w *worker) setApplied(rev uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.facts.rev = rev
	close(w.changed)
	w.changed = make(chan struct{})
}

// loop is the conversation with a worker that serves. It returns nil when the
// worker was told to end and has said that it is done.
func (w *worker) loop() error {
	var policyAlarm, drainAlarm, goneAlarm <-chan time.Time
	var pending []byte
	gone := w.process.Done()
	for {
		in, out := w.frames, chan<- []byte(nil)
		if pending != nil {
			in, out = nil, w.batches // no more from this worker until the ledger follows
		}
		select {
		case f, ok := <-in:
			if !ok {
				return w.lastWords()
			}
			if f.kind == control.TypeReceipts && !w.drained {
				pending = f.payload
				continue
			}
			if err := w.hear(f); err != nil {
				return err
			}
			if policyAlarm != nil && w.info().rev == w.sentRev {
				policyAlarm = nil
			}
		case out <- pending:
			pending = nil
		case <-w.kick:
			if !w.drainSent {
				sent, err := w.pushPolicy()
				if err != nil {
					return err
				}
				if sent && policyAlarm == nil {
					policyAlarm = time.After(w.env.cfg.PolicyTimeout)
				}
			}
			var err error
			if drainAlarm, err = w.pushDrain(drainAlarm); err != nil {
				return err
			}
		case <-policyAlarm:
			return fmt.Errorf("worker did not apply policy %d within %s", w.sentRev, w.env.cfg.PolicyTimeout)
		case <-drainAlarm:
			return errors.New("worker did not drain in time")
		case err := <-w.failed:
			return err
		case <-gone: // its last messages may still be in the socket
			gone, goneAlarm = nil, time.After(exitSlack)
		case <-goneAlarm:
			return w.lastWords()
		}
	}
}

// hear takes one message but receipts.
func (w *worker) hear(f frame) error {
	switch {
	case w.drained:
		return &protocolError{fmt.Sprintf("message type %d after drained", f.kind)}
	case f.kind == control.TypeFatal:
		return fatal(f.payload)
	case f.kind == control.TypePolicyApplied:
		m, err := control.Decode[control.PolicyApplied](f.payload)
		if err != nil {
			return &protocolError{err.Error()}
		}
		if have := w.info().rev; m.Rev < have || m.Rev > w.sentRev {
			return &protocolError{fmt.Sprintf("policy %d applied, between %d and %d expected", m.Rev, have, w.sentRev)}
		}
		w.setApplied(m.Rev)
		return nil
	case f.kind == control.TypeDrained && w.drainSent:
		if _, err := control.Decode[control.Drained](f.payload); err != nil {
			return &protocolError{err.Error()}
		}
		w.drained = true
		return nil
	}
	return &protocolError{fmt.Sprintf("message type %d while serving", f.kind)}
}

// fatal is a worker's own reason to give up. It is shown quoted and cut: it
// comes from the sandbox.
func fatal(payload []byte) error {
	m, err := control.Decode[control.Fatal](payload)
	if err != nil {
		return &protocolError{err.Error()}
	}
	cut := func(s string) string { return s[:min(len(s), maxFatalText)] }
	return fmt.Errorf("worker cannot serve: %q: %q", cut(m.Reason), cut(m.Detail))
}

// pushPolicy sends the present policy if the worker has an older one. The
// allow-list of its egress changes before that, so that a removed provider is
// out of reach whatever the worker does.
func (w *worker) pushPolicy() (sent bool, err error) {
	rev, ok := w.env.rev(w.id)
	if !ok || rev <= w.sentRev {
		return false, nil
	}
	p, err := w.policy()
	if err != nil {
		if errors.Is(err, ErrNoTenant) {
			return false, nil // deleted: it is about to be drained
		}
		return false, err
	}
	w.sentRev = p.Rev
	return true, w.ch.control.Send(control.TypePolicy, p)
}

// pushDrain sends Drain when it is wanted, and answers when to lose patience: a
// little after the worker's own deadline, or at once when that is 0.
func (w *worker) pushDrain(alarm <-chan time.Time) (<-chan time.Time, error) {
	w.mu.Lock()
	want := w.want
	w.mu.Unlock()
	if !want.drain {
		return alarm, nil
	}
	slack := exitSlack
	if want.in <= 0 {
		slack = 0 // no patience left
	}
	alarm = time.After(time.Until(want.by) + slack)
	if w.drainSent {
		return alarm, nil
	}
	w.drainSent = true
	return alarm, w.ch.control.Send(control.TypeDrain, control.Drain{Timeout: want.in})
}

// lastWords judges a conversation that the worker ended.
func (w *worker) lastWords() error {
	if errors.Is(w.readErr, control.ErrFrame) {
		return &protocolError{w.readErr.Error()}
	}
	select {
	case <-w.process.Done():
	case <-time.After(exitSlack):
		if w.drained {
			return nil
		}
		return errors.New("worker closed its control socket")
	}
	if w.drained {
		return nil
	}
	return fmt.Errorf("worker ended: %s", w.process.Exit())
}

// finish ends what is left of the process, then everything around it, and
// publishes err. It is called once.
func (w *worker) finish(err error) {
	w.process.Kill()
	<-w.process.Done()
	close(w.stop)
	w.ch.control.Close()
	close(w.batches)
	w.cancel()
	w.plugins.close()
	_ = w.ch.logs.SetReadDeadline(time.Now().Add(logSlack))
	w.helpers.Wait()
	w.ch.close()
	if err == nil && w.booked {
		err = w.env.dirs.clearUnbooked(w.id)
	}
	w.endErr = err
	close(w.ended)
}

// read moves frames from the socket to the loop.
func (w *worker) read() {
	defer close(w.frames)
	for {
		kind, payload, err := w.ch.control.Receive()
		if err != nil {
			w.readErr = err
			return
		}
		select {
		case w.frames <- frame{kind, payload}:
		case <-w.stop:
			return
		}
	}
}

// book hands the batches to the ledger, one after the other, and acknowledges
// them. A batch that is refused ends the worker: it was forged or is out of
// order, and the worker would send it again for ever.
func (w *worker) book() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	w.helpers.Go(func() {
		select {
		case <-ctx.Done():
			return
		case <-w.stop:
		}
		select {
		case <-ctx.Done():
		case <-time.After(bookSlack):
			cancel()
		}
	})
	for raw := range w.batches {
		seq, err := w.env.books.Book(ctx, w.id, raw)
		if err != nil {
			w.booked = false
			w.fail(fmt.Errorf("book receipts: %w", err))
			continue
		}
		// A worker that has ended, or does not read, misses nothing: Serve
		// tells the next one.
		_ = w.ch.control.Send(control.TypeAck, control.Ack{Seq: seq})
	}
}

// fail ends the conversation; the first reason counts.
func (w *worker) fail(err error) {
	select {
	case w.failed <- err:
	default:
	}
}

// serveEgress answers the broker socket.
func (w *worker) serveEgress(ctx context.Context, e *egress.Tenant) {
	if err := e.Serve(ctx, w.ch.broker, w.plugins); err != nil {
		w.fail(&protocolError{err.Error()})
	}
}
