package books

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/bulkhead-ai/bulkhead/worker/internal/logbook"

	"go.uber.org/zap"
)

// view is the logbook, opened beside the request path: a request needs the
// journal only, so a slow or damaged view delays nobody but who asks for logs.
type view struct {
	cfg    logbook.Config
	cancel context.CancelFunc
	ctx    context.Context // ends the follower; owned by the view, not by a request
	opened chan struct{}   // closed when book or err is set
	once   sync.Once
	book   *logbook.Logbook
	err    error
	done   sync.WaitGroup
}

func newView(cfg logbook.Config) *view {
	ctx, cancel := context.WithCancel(context.Background())
	return &view{cfg: cfg, ctx: ctx, cancel: cancel, opened: make(chan struct{})}
}

// open opens the logbook in the background and follows the journal.
func (v *view) open() {
	v.once.Do(func() {
		v.done.Go(func() {
			v.book, v.err = logbook.Open(v.cfg)
			close(v.opened)
			if v.err == nil {
				v.err = v.book.Run(v.ctx)
			}
			if v.err != nil {
				v.cfg.Log.Error("logbook stopped", zap.Error(v.err))
			}
		})
	})
}

// notify says that the journal has grown.
func (v *view) notify() {
	select {
	case <-v.opened:
		if v.book != nil {
			v.book.Notify()
		}
	default: // it reads everything once it is open
	}
}

// query reads the view once it holds everything that is durable.
func (v *view) query(ctx context.Context, f logbook.Filter, fn func(line []byte) error) error {
	select {
	case <-v.opened:
	case <-ctx.Done():
		return fmt.Errorf("wait for the logbook: %w", ctx.Err())
	}
	if v.book == nil {
		return errors.New("the logbook could not be opened")
	}
	return v.book.Query(ctx, f, fn)
}

func (v *view) close() error {
	v.once.Do(func() { close(v.opened) }) // never opened: nothing to end
	v.cancel()
	v.done.Wait()
	if v.book == nil {
		return nil
	}
	return v.book.Close()
}
