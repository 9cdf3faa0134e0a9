package trail

import (
	"context"
	"crypto/rand"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/bulkhead-ai/bulkhead/cluster/audit"
	"go.uber.org/zap"
)

// Teller takes events; Recorder is one.
type Teller interface {
	Record(ctx context.Context, log string, e audit.Event) error
}

const (
	refusalPeriod = time.Minute
	maxRefusers   = 64 // addresses that are told apart in a period
)

// Refusals counts credentials that nobody knows. A guess is no event of its own:
// whoever guesses could fill the trail. Every minute one event per port and
// address, for at most 64 of them, says how many there were; the others are in
// one event without an address. Its methods may be called concurrently.
type Refusals struct {
	log *zap.Logger

	mu     sync.Mutex
	counts map[refuser]int64
	others int64
}

type refuser struct {
	port string
	addr netip.Addr
}

// NewRefusals allocates an empty count; Run writes it. log may be nil.
func NewRefusals(log *zap.Logger) *Refusals {
	if log == nil {
		log = zap.NewNop()
	}
	return &Refusals{log: log, counts: map[refuser]int64{}}
}

// Refused counts one refused credential. port says where, e.g. "admin". It never
// blocks on anything but another count.
func (f *Refusals) Refused(port string, addr netip.Addr) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.add(refuser{port, addr.Unmap()}, 1)
}

func (f *Refusals) add(who refuser, n int64) {
	if _, known := f.counts[who]; known || len(f.counts) < maxRefusers {
		f.counts[who] += n
		return
	}
	f.others += n
}

// Run writes the counts every minute, and what is left when ctx ends. What
// cannot be written stays counted.
func (f *Refusals) Run(ctx context.Context, t Teller) {
	tick := time.NewTicker(refusalPeriod)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			f.flush(ctx, t)
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
			defer cancel()
			f.flush(last, t)
			return
		}
	}
}

// flush writes the counts side by side, so that they share a command.
func (f *Refusals) flush(ctx context.Context, t Teller) {
	f.mu.Lock()
	counts, others := f.counts, f.others
	f.counts, f.others = map[refuser]int64{}, 0
	f.mu.Unlock()
	var wg sync.WaitGroup
	tell := func(who refuser, n int64) {
		wg.Go(func() {
			if err := t.Record(ctx, audit.Platform, refusalEvent(who, n)); err != nil {
				f.log.Warn("refused credentials are not in the audit trail yet", zap.Error(err))
				f.keep(who, n)
			}
		})
	}
	for who, n := range counts {
		tell(who, n)
	}
	if others > 0 {
		tell(refuser{}, others)
	}
	wg.Wait()
}

func (f *Refusals) keep(who refuser, n int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if who == (refuser{}) {
		f.others += n
		return
	}
	f.add(who, n)
}

func refusalEvent(who refuser, n int64) audit.Event {
	e := audit.Event{
		Op: strings.ToLower(rand.Text()), Phase: audit.Single, Action: ActionRefused,
		Actor: audit.Actor{Method: "none"}, Result: audit.Denied, Count: n,
	}
	if who.port != "" {
		e.Object = "port " + who.port
	}
	if who.addr.IsValid() {
		e.Actor.Address = who.addr.String()
	}
	return e
}

// Waiting lists what is not written yet, by port and address; for tests and
// metrics.
func (f *Refusals) Waiting() (addresses int, total int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	total = f.others
	for _, n := range f.counts {
		total += n
	}
	return len(f.counts), total
}
