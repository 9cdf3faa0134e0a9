package tenants

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"go.uber.org/zap"
)

// fakeNode is an environment whose processes are scripted. It lives in a
// synctest bubble, so all of its time is virtual.
type fakeNode struct {
	cfg  Config
	idle atomic.Int64 // a time.Duration

	starts chan *fakeStart // one for each start, answered by the test
	live   sync.WaitGroup
}

type fakeStart struct {
	ctx    context.Context
	answer chan error
	p      *fakeProcess
}

type fakeProcess struct {
	ended    chan struct{}
	end      error
	drained  chan time.Duration
	finished sync.Once
}

func (p *fakeProcess) done() <-chan struct{}              { return p.ended }
func (p *fakeProcess) err() error                         { return p.end }
func (p *fakeProcess) drain(timeout time.Duration)        { p.drained <- timeout }
func (p *fakeProcess) kill()                              { p.exit(errKilled) }
func (p *fakeProcess) sync()                              {}
func (p *fakeProcess) applied() (uint64, <-chan struct{}) { return 0, nil }
func (p *fakeProcess) info() processInfo                  { return processInfo{} }

// exit ends the process; only the first call counts.
func (p *fakeProcess) exit(err error) {
	p.finished.Do(func() { p.end = err; close(p.ended) })
}

var errKilled = errors.New("killed")

func newFakeNode() *fakeNode {
	n := &fakeNode{cfg: Config{MaxWaiting: 3}.withDefaults(), starts: make(chan *fakeStart, 10)}
	n.idle.Store(int64(time.Minute))
	return n
}

func (n *fakeNode) start(ctx context.Context, _ bulkhead.TenantID) (process, error) {
	s := &fakeStart{ctx, make(chan error, 1), &fakeProcess{ended: make(chan struct{}), drained: make(chan time.Duration, 10)}}
	n.starts <- s
	select {
	case err := <-s.answer:
		if err != nil {
			return nil, err
		}
		return s.p, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (n *fakeNode) spawn(f func())                              { n.live.Go(f) }
func (n *fakeNode) idleTimeout(bulkhead.TenantID) time.Duration { return time.Duration(n.idle.Load()) }
func (n *fakeNode) config() *Config                             { return &n.cfg }

// life is a tenant on a fake node.
type life struct {
	*testing.T
	node *fakeNode
	*tenant
}

// alive runs f on a tenant in a bubble and ends what f left.
func alive(t *testing.T, f func(l life)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		n := newFakeNode()
		l := life{t, n, newTenant("acme", n, zap.NewNop())}
		f(l)
		synctest.Wait()
		_, p, _ := l.current()
		l.shutdown(0)
		if p != nil {
			p.(*fakeProcess).exit(nil)
		}
		n.live.Wait()
	})
}

func (l life) want(s State) {
	l.Helper()
	synctest.Wait()
	if got, _, _ := l.current(); got != s {
		l.Fatalf("state %s, want %s", got, s)
	}
}

// begun answers the start that is due now.
func (l life) begun() *fakeStart {
	l.Helper()
	synctest.Wait()
	select {
	case s := <-l.node.starts:
		return s
	default:
		l.Fatal("no start")
		return nil
	}
}

func (l life) notBegun() {
	l.Helper()
	synctest.Wait()
	if len(l.node.starts) > 0 {
		l.Fatal("a start that nobody asked for")
	}
}

// serving asks for a lease and lets the start succeed.
func (l life) serving() (*Lease, *fakeProcess) {
	l.Helper()
	got := l.asks(context.Background())
	s := l.begun()
	l.Helper()
	s.answer <- nil
	a := <-got
	if a.err != nil {
		l.Fatal(a.err)
	}
	return a.lease, s.p
}

type asked struct {
	lease *Lease
	err   error
}

func (l life) asks(ctx context.Context) <-chan asked {
	out := make(chan asked, 1)
	go func() {
		lease, err := l.acquire(ctx)
		out <- asked{lease, err}
	}()
	return out
}

// refused asks and checks the refusal's code.
func (l life) refused(code string) *bulkhead.Error {
	l.Helper()
	_, err := l.acquire(context.Background())
	var e *bulkhead.Error
	if !errors.As(err, &e) || e.Code != code {
		l.Fatalf("got %v, want %s", err, code)
	}
	return e
}

func TestFirstRequestStartsTheWorker(t *testing.T) {
	alive(t, func(l life) {
		l.want(Hibernating)
		first, second := l.asks(context.Background()), l.asks(context.Background())
		s := l.begun()
		l.want(Starting)
		l.notBegun()
		s.answer <- nil
		a, b := <-first, <-second
		l.want(Serving)
		if a.err != nil || b.err != nil || a.lease.Done() != b.lease.Done() {
			l.Fatalf("%v, %v: want leases on one process", a.err, b.err)
		}
		if st := l.status(); st.Leases != 2 || st.Counts.Starts != 1 || st.Waiting != 0 {
			l.Fatalf("%+v", st)
		}
	})
}

func TestWaitersAreBounded(t *testing.T) {
	alive(t, func(l life) {
		ctx, cancel := context.WithCancel(context.Background())
		var waiting []<-chan asked
		for range 3 {
			waiting = append(waiting, l.asks(ctx))
		}
		s := l.begun()
		if e := l.refused("worker_starting"); e.RetryAfter <= 0 || e.Status() != 503 {
			l.Fatalf("%+v", e)
		}
		cancel()
		for _, w := range waiting {
			if a := <-w; !errors.Is(a.err, context.Canceled) {
				l.Fatal(a.err)
			}
		}
		s.answer <- nil // the start goes on: the next request has it
		l.want(Serving)
		if a := <-l.asks(context.Background()); a.err != nil {
			l.Fatal(a.err)
		}
	})
}

func TestIdleWorkerHibernates(t *testing.T) {
	alive(t, func(l life) {
		lease, p := l.serving()
		time.Sleep(10 * time.Minute)
		l.want(Serving) // the lease holds it
		lease.Release()
		lease.Release() // once is all it counts
		time.Sleep(59 * time.Second)
		again := <-l.asks(context.Background())
		again.lease.Release()
		time.Sleep(59 * time.Second)
		l.want(Serving)
		time.Sleep(2 * time.Second)
		l.want(Draining)
		if d := <-p.drained; d != l.node.cfg.DrainTimeout {
			l.Fatalf("drain timeout %s", d)
		}
		late := l.asks(context.Background())
		l.want(Draining) // it waits for the end
		p.exit(nil)
		s := l.begun()
		s.answer <- nil
		if a := <-late; a.err != nil {
			l.Fatal(a.err)
		}
		if st := l.status(); st.Counts.Crashes != 0 {
			l.Fatalf("%+v", st.Counts)
		}
	})
}

func TestZeroIdleTimeoutIsNever(t *testing.T) {
	alive(t, func(l life) {
		l.node.idle.Store(0)
		lease, _ := l.serving()
		lease.Release()
		time.Sleep(24 * time.Hour)
		l.want(Serving)
		l.node.idle.Store(int64(time.Hour)) // a new policy
		time.Sleep(2 * time.Hour)
		l.want(Draining)
	})
}

func TestFirstCrashRestartsAtOnce(t *testing.T) {
	alive(t, func(l life) {
		_, p := l.serving()
		time.Sleep(time.Second)
		p.exit(errors.New("signal 9"))
		l.want(Crashed)
		got := l.asks(context.Background())
		l.begun().answer <- nil
		if a := <-got; a.err != nil {
			l.Fatal(a.err)
		}
		if st := l.status(); st.Counts.Crashes != 1 || st.LastError != "signal 9" {
			l.Fatalf("%+v", st)
		}
	})
}

func TestCrashedWorkerComesBackUnasked(t *testing.T) {
	alive(t, func(l life) {
		_, p := l.serving()
		p.exit(errors.New("signal 9"))
		l.want(Crashed)
		l.notBegun()
		time.Sleep(l.node.cfg.RecoverAfter)
		l.begun().answer <- nil // its journal may hold receipts
		l.want(Serving)
	})
}

func TestCrashLoopBacksOff(t *testing.T) {
	alive(t, func(l life) {
		_, p := l.serving()
		pauses := []time.Duration{}
		for len(pauses) < 12 {
			p.exit(errors.New("signal 11"))
			synctest.Wait()
			st := l.status()
			if st.State == BackingOff {
				e := l.refused("worker_restarting")
				if e.Kind != bulkhead.Unavailable || e.RetryAfter <= 0 {
					l.Fatalf("%+v", e)
				}
				pauses = append(pauses, time.Until(st.RetryAt))
				time.Sleep(time.Until(st.RetryAt))
				l.want(Crashed)
			}
			got := l.asks(context.Background())
			s := l.begun()
			s.answer <- nil
			<-got
			p = s.p
		}
		if pauses[0] != minBackoff || pauses[11] != maxBackoff {
			l.Fatalf("pauses %v", pauses)
		}
		for i := 1; i < len(pauses); i++ {
			if pauses[i] < pauses[i-1] {
				l.Fatalf("pauses %v", pauses)
			}
		}
		time.Sleep(healthyAfter)
		p.exit(errors.New("signal 11"))
		l.want(Crashed) // a healthy run has wiped the slate
	})
}

func TestBrokenTenantIsLeftAlone(t *testing.T) {
	alive(t, func(l life) {
		got := l.asks(context.Background())
		for i := range l.node.cfg.RecoverAttempts {
			l.begun().answer <- errors.New("log_damaged")
			if i == 0 {
				<-got
			}
			time.Sleep(time.Minute)
		}
		l.begun().answer <- errors.New("log_damaged")
		time.Sleep(24 * time.Hour)
		l.want(Crashed)
		l.notBegun()
		l.asks(context.Background())
		l.begun() // the next request tries
	})
}

func TestStartFailureIsNoCrash(t *testing.T) {
	alive(t, func(l life) {
		got := l.asks(context.Background())
		l.begun().answer <- errors.New(`worker cannot serve: "low_disk"`)
		a := <-got
		var e *bulkhead.Error
		if !errors.As(a.err, &e) || e.Code != "worker_restarting" || e.Err == nil || e.Err.Error() != `worker cannot serve: "low_disk"` {
			l.Fatalf("%v", a.err)
		}
		st := l.status()
		if st.State != BackingOff || st.Counts.StartFailures != 1 || st.Counts.Crashes != 0 || st.LastError == "" {
			l.Fatalf("%+v", st)
		}
		time.Sleep(minBackoff)
		l.want(Crashed)
	})
}
