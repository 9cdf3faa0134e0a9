// Package daemon is the life of a worker process: born with a control socket,
// it locks itself down, opens the tenant's books, serves one epoch and ends.
//
// It guarantees that nothing of the tenant is read before the sandbox holds and
// the epoch is committed (until then another node may own the journal), that no
// request is served before the epoch's record is in the journal and in the copies
// that are kept of it, and that the process ends when its supervisor does. It holds no
// state that the journal does not: kill -9 at any point is a correct shutdown.
package daemon

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"time"

	"github.com/bulkhead-ai/bulkhead/worker/control"
	"github.com/bulkhead-ai/bulkhead/worker/internal/books"
	"github.com/bulkhead-ai/bulkhead/worker/internal/journal"
	"github.com/bulkhead-ai/bulkhead/worker/internal/lease"
	"github.com/bulkhead-ai/bulkhead/worker/internal/lockdown"

	"go.uber.org/zap"
)

// How long running requests may finish in cases that nobody sets a time for.
const (
	orphanGrace = 10 * time.Second // the supervisor is gone
	brokenGrace = time.Second      // nothing can be recorded any more: they can only be told
)

// worker is the state of the process between its messages. The control loop
// owns it; nothing else writes its fields.
type worker struct {
	control *control.Conn
	confine func(control.Sandbox) ([]control.Layer, error)
	sockets func() (sockets, error)
	copies  func() (io.ReadWriteCloser, error) // the replication socket, asked for when copies are kept
	page    func() (*lease.Page, error)        // maps the lease page, before the sandbox
	disk    journal.FS                         // nil = the real disk
	start   control.Start
	log     *zap.Logger
	signer  ed25519.PrivateKey
	lease   *lease.Page
	books   *books.Books // nil until Serve
	service *service     // nil until Serve

	background sync.WaitGroup
}

// Run lives the life of a worker and returns its exit code: 0 after a drain or
// the supervisor's end, 1 when it could not serve (and said why on the control
// socket).
func Run() int {
	w := &worker{
		control: control.NewConn(os.NewFile(control.FDControl, "control")),
		confine: func(s control.Sandbox) ([]control.Layer, error) { return lockdown.Apply(s, lockdown.Worker) },
		sockets: inherited,
		copies:  func() (io.ReadWriteCloser, error) { return os.NewFile(control.FDReplica, "replica"), nil },
		page:    leasePage,
	}
	return w.run()
}

func (w *worker) run() int {
	if err := w.live(); err != nil {
		var f *fatalError
		if !errors.As(err, &f) {
			f = &fatalError{reason: "internal", err: err}
		}
		_ = w.control.Send(control.TypeFatal, control.Fatal{Reason: f.reason, Detail: f.err.Error()})
		if w.log != nil {
			w.log.Error("worker ends", zap.String("reason", f.reason), zap.Error(f.err))
		}
		return 1
	}
	return 0
}

// leasePage maps the page that the process was born with.
func leasePage() (*lease.Page, error) {
	f := os.NewFile(control.FDLease, "lease")
	defer f.Close()
	return lease.Map(f)
}

// fatalError names a reason that operators see.
type fatalError struct {
	reason string
	err    error
}

func (e *fatalError) Error() string { return e.reason + ": " + e.err.Error() }

func (e *fatalError) Unwrap() error { return e.err }

func fatal(reason string, err error) error { return &fatalError{reason, err} }

func (w *worker) live() error {
	if err := w.receiveStart(); err != nil {
		return err
	}
	var err error
	if w.lease, err = w.page(); err != nil {
		return fatal("lease", err)
	}
	defer w.lease.Close() // after the drain: nothing looks at it any more
	layers, err := w.confine(w.start.Sandbox)
	if err != nil {
		return fatal("missing_layer", err)
	}
	defer w.drain(0) // whatever went wrong: what runs is closed on the books
	public, signer, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return fmt.Errorf("generate receipt key: %w", err)
	}
	w.signer = signer
	hello := control.Hello{PublicKey: public, Layers: layers}
	if err := w.control.Send(control.TypeHello, hello); err != nil {
		return fmt.Errorf("send hello: %w", err)
	}
	return w.loop()
}

func (w *worker) receiveStart() error {
	t, raw, err := w.control.Receive()
	if err != nil {
		return fmt.Errorf("receive start: %w", err)
	}
	if t != control.TypeStart {
		return fmt.Errorf("first message is of type %d, not a start", t)
	}
	if w.start, err = control.Decode[control.Start](raw); err != nil {
		return fmt.Errorf("decode start: %w", err)
	}
	w.log = newLogger(w.start.Tuning.LogLevel)
	debug.SetMemoryLimit(or(w.start.Tuning.MemoryBytes, defaultMemory) / 3 * 2) // collect before the kernel kills
	return nil
}

// openBooks opens the journal, which is this process's now.
func (w *worker) openBooks(replicated bool) error {
	var copies io.ReadWriteCloser
	if replicated {
		var err error
		if copies, err = w.copies(); err != nil {
			return fmt.Errorf("open replication socket: %w", err)
		}
	}
	dir := lockdown.DataPath(w.start.Sandbox, lockdown.Worker)
	t := w.start.Tuning
	b, err := books.Open(books.Config{
		Tenant: w.start.Tenant, Dir: filepath.Join(dir, "journal"), LogbookDir: filepath.Join(dir, "logbook"),
		DataKey: w.start.DataKey, SegmentBytes: t.SegmentBytes, MaxBytes: t.MaxJournalBytes, MinFree: t.MinFreeBytes,
		QueueLen: t.QueueLen, Policy: &w.start.Policy, Copies: copies, FS: w.disk, Log: w.log,
	})
	clear(w.start.DataKey)
	switch {
	case errors.Is(err, books.ErrDamaged):
		return fatal("log_damaged", err)
	case errors.Is(err, books.ErrLowSpace):
		return fatal("low_disk", err)
	case err != nil:
		return fatal("journal", err)
	}
	w.books = b
	return nil
}

// message is what came on the control socket.
type message struct {
	kind control.Type
	raw  []byte
	err  error
}

// receive hands the supervisor's messages to the loop, the last one with an
// error. It ends with the socket, or when nobody listens any more.
func (w *worker) receive(to chan<- message, over <-chan struct{}) {
	for {
		t, raw, err := w.control.Receive()
		select {
		case to <- message{t, raw, err}:
		case <-over:
			return
		}
		if err != nil {
			return
		}
	}
}

// loop handles the supervisor's messages until the worker has drained, the
// supervisor is gone, or the journal is.
func (w *worker) loop() error {
	messages, over := make(chan message), make(chan struct{})
	defer close(over)
	go w.receive(messages, over) // ends with the process at the latest
	for {
		var m message
		select {
		case <-w.broken():
			err := fatal("journal_poisoned", books.ErrPoisoned)
			return errors.Join(err, w.drain(brokenGrace))
		case m = <-messages:
		}
		t, raw, err := m.kind, m.raw, m.err
		if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) {
			return w.drain(orphanGrace)
		} else if err != nil {
			return fmt.Errorf("receive: %w", err)
		}
		switch t {
		case control.TypeServe:
			err = w.serve(raw)
		case control.TypePolicy:
			err = w.policy(raw)
		case control.TypeAck:
			err = w.ack(raw)
		case control.TypeDrain:
			d, derr := control.Decode[control.Drain](raw)
			if derr != nil {
				return fmt.Errorf("decode drain: %w", derr)
			}
			if err := w.drain(d.Timeout); err != nil {
				return err
			}
			return w.control.Send(control.TypeDrained, control.Drained{HeadSeq: w.head()})
		default:
			err = fmt.Errorf("message of type %d is not for a worker", t)
		}
		if err != nil {
			return err
		}
	}
}

// broken is closed when the journal can never be written again.
func (w *worker) broken() <-chan struct{} {
	if w.books == nil {
		return nil
	}
	return w.books.Broken()
}

// head is the last durable record, 0 as long as no journal is open.
func (w *worker) head() uint64 {
	if w.books == nil {
		return 0
	}
	return w.books.Head()
}

// serve begins the epoch and opens the doors.
func (w *worker) serve(raw []byte) error {
	if w.books != nil {
		return errors.New("second serve message")
	}
	m, err := control.Decode[control.Serve](raw)
	if err != nil {
		return fmt.Errorf("decode serve: %w", err)
	}
	if err := w.openBooks(m.Replicated); err != nil {
		return err
	}
	err = w.books.Begin(books.Epoch{Number: m.Epoch, AppliedSeq: m.AppliedSeq, Frontier: m.Frontier})
	switch {
	case errors.Is(err, books.ErrDamaged):
		return fatal("log_damaged", err)
	case books.IsUnconfirmed(err):
		return fatal("copies_unavailable", err)
	case err != nil:
		return fatal("recovery", err)
	}
	if w.service, err = newService(w); err != nil {
		return err
	}
	return w.control.Send(control.TypeReady, control.Ready{Epoch: m.Epoch})
}

func (w *worker) policy(raw []byte) error {
	p, err := control.Decode[control.Policy](raw)
	if err != nil {
		return fmt.Errorf("decode policy: %w", err)
	}
	if w.service == nil {
		return errors.New("policy before serve")
	}
	w.books.SetPolicy(&p)
	w.service.setPolicy(&p)
	return w.control.Send(control.TypePolicyApplied, control.PolicyApplied{Rev: p.Rev})
}

func (w *worker) ack(raw []byte) error {
	a, err := control.Decode[control.Ack](raw)
	if err != nil {
		return fmt.Errorf("decode ack: %w", err)
	}
	if w.books == nil {
		return errors.New("acknowledgement before serve")
	}
	return w.books.Booked(a.Seq)
}

// drain finishes what runs, sends the last receipts if somebody listens, and
// closes the stores. A second call does nothing.
func (w *worker) drain(grace time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	if w.service != nil {
		w.service.close(ctx)
		w.service = nil
	}
	w.background.Wait()
	if w.books == nil {
		return nil
	}
	if err := w.books.Close(); err != nil {
		return fmt.Errorf("close books: %w", err)
	}
	return nil
}
