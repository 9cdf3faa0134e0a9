package upstream

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"testing"

	"github.com/bulkhead-ai/bulkhead/plugins/provider"
)

var errLost = errors.New("lease lost")

// lapse is a lease that a test ends, or that ends after some looks.
type lapse struct {
	lost  atomic.Bool
	looks atomic.Int64 // until it is over; 0 = no end
}

func (l *lapse) Check() error {
	if l.looks.Load() > 0 && l.looks.Add(-1) == 0 {
		l.lost.Store(true)
	}
	if l.lost.Load() {
		return errLost
	}
	return nil
}

// slowDialer loses the lease while it dials.
type slowDialer struct {
	*dialer
	lease *lapse
}

func (d slowDialer) Dial(ctx context.Context, name string) (net.Conn, error) {
	d.lease.lost.Store(true)
	return d.dialer.Dial(ctx, name)
}

// TestLeaseIsLookedAtRightBeforeTheRequest: whatever took its time before.
func TestLeaseIsLookedAtRightBeforeTheRequest(t *testing.T) {
	var served atomic.Int64
	d := serve(t, func(w http.ResponseWriter, r *http.Request) { served.Add(1); io.WriteString(w, "ok") })
	l := &lapse{}
	pool := New(slowDialer{d, l}, l, nil)
	defer pool.Close()
	if _, err := pool.Send(t.Context(), main(), bearer(), ask(), "1"); !errors.Is(err, errLost) || !NotSent(err) || served.Load() != 0 {
		t.Fatalf("lost while dialling: %v, %d served", err, served.Load())
	}
	if dials := d.dials.Load(); dials != 1 {
		t.Errorf("%d dials", dials)
	}
	if _, err := pool.Send(t.Context(), main(), bearer(), ask(), "2"); !errors.Is(err, errLost) || !NotSent(err) || d.dials.Load() != 1 {
		t.Errorf("lost before: %v, %d dials", err, d.dials.Load())
	}

	held := &lapse{}
	kept := New(d, held, nil)
	defer kept.Close()
	resp, err := kept.Send(t.Context(), main(), bearer(), ask(), "3")
	if err != nil {
		t.Fatal(err)
	}
	read(t, resp)
	held.looks.Store(2) // the one of Send passes, the one of the kept connection does not
	if _, err := kept.Send(t.Context(), main(), bearer(), ask(), "4"); !errors.Is(err, errLost) || !NotSent(err) || served.Load() != 1 {
		t.Errorf("lost on a kept connection: %v, %d served", err, served.Load())
	}
}

// TestLeaseLostInTheMiddle of a request: the rest stays here, and it is not said
// that nothing was sent.
func TestLeaseLostInTheMiddle(t *testing.T) {
	d := serve(t, func(w http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) })
	l := &lapse{}
	l.looks.Store(3) // Send, the head, and not all of the body
	pool := New(d, l, nil)
	defer pool.Close()
	r := &provider.Request{Path: "/x", Body: bytes.Repeat([]byte("x"), 1<<20)}
	if _, err := pool.Send(t.Context(), main(), bearer(), r, "1"); !errors.Is(err, errLost) || NotSent(err) {
		t.Errorf("%v, not sent %v", err, NotSent(err))
	}
}
