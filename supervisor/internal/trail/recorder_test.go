package trail

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster"
	"github.com/bulkhead-ai/bulkhead/cluster/audit"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"github.com/bulkhead-ai/bulkhead/cluster/state"
)

// proposer answers as the test says.
type proposer struct {
	mu    sync.Mutex
	sizes []int
	ids   []string
	do    func(ctx context.Context, try int, cmd *command.AppendAudit) error
}

func (p *proposer) ProposeID(ctx context.Context, id string, cmd command.Command) (any, error) {
	p.mu.Lock()
	a := cmd.(*command.AppendAudit)
	p.sizes, p.ids = append(p.sizes, len(a.Entries)), append(p.ids, id)
	try := len(p.ids)
	p.mu.Unlock()
	return nil, p.do(ctx, try, a)
}

type keeper struct{ err error }

func (k keeper) Ready() error { return k.err }

func newRecorder(t testing.TB, p Proposer) *Recorder {
	t.Helper()
	return NewRecorder(RecorderConfig{Node: "n1", Proposer: p, Keeper: keeper{}})
}

func wantUnavailable(t testing.TB, err error) {
	t.Helper()
	var e *bulkhead.Error
	if !errors.As(err, &e) || e.Kind != bulkhead.Unavailable || e.Code != "audit_unavailable" {
		t.Fatalf("got %v", err)
	}
}

func TestRecordIsCommittedWhenItReturns(t *testing.T) {
	c := newCluster()
	r := newRecorder(t, c)
	defer r.Close()
	e := event("apply")
	e.Node = "somebody else"
	if err := r.Record(t.Context(), audit.TenantLog("acme"), e); err != nil {
		t.Fatal(err)
	}
	var got audit.Record
	c.View().AuditSince(0, func(l state.AuditLine) bool {
		got, _ = audit.ReadRecord(l.Line)
		return true
	})
	if got.Log != "tenant/acme" || got.Seq != 1 || got.Action != "apply" || got.Node != "n1" {
		t.Fatalf("got %+v", got)
	}
	wantUnavailable(t, r.Record(t.Context(), "tenant/../x", e))
	r.Close()
	wantUnavailable(t, r.Record(t.Context(), audit.Platform, e))
}

func TestRecordGathersWhatArrivesMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &proposer{do: func(context.Context, int, *command.AppendAudit) error { time.Sleep(10 * time.Millisecond); return nil }}
		r := newRecorder(t, p)
		defer r.Close()
		begun := time.Now()
		if err := r.Record(t.Context(), audit.Platform, event("apply")); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begun); took != 10*time.Millisecond {
			t.Fatalf("a lone event took %v", took)
		}
		var wg sync.WaitGroup
		for range 300 {
			wg.Go(func() {
				if err := r.Record(t.Context(), audit.Platform, event("apply")); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		total := 0
		for _, n := range p.sizes {
			if total += n; n > command.MaxAuditEntries {
				t.Fatalf("%d events in one command", n)
			}
		}
		if total != 301 || len(p.sizes) > 4 {
			t.Fatalf("commands of %v events", p.sizes)
		}
	})
}

func TestRecordNeverHangs(t *testing.T) {
	for name, do := range map[string]func(context.Context, int, *command.AppendAudit) error{
		"slow":    func(context.Context, int, *command.AppendAudit) error { time.Sleep(time.Hour); return nil },
		"waits":   func(ctx context.Context, _ int, _ *command.AppendAudit) error { <-ctx.Done(); return ctx.Err() },
		"unknown": func(context.Context, int, *command.AppendAudit) error { return cluster.ErrUnknownOutcome },
		"after all": func(context.Context, int, *command.AppendAudit) error {
			time.Sleep(5100 * time.Millisecond)
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRecorder(t, &proposer{do: do})
				defer r.Close()
				begun := time.Now()
				var wg sync.WaitGroup
				for range 3 {
					wg.Go(func() { wantUnavailable(t, r.Record(t.Context(), audit.Platform, event("apply"))) })
					time.Sleep(time.Millisecond)
				}
				wg.Wait()
				if took := time.Since(begun); took > 5*time.Second+100*time.Millisecond {
					t.Fatalf("it took %v", took)
				}
			})
		})
	}
}

func TestRecordEndsWithItsCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &proposer{do: func(ctx context.Context, try int, _ *command.AppendAudit) error { time.Sleep(time.Second); return nil }}
		r := newRecorder(t, p)
		defer r.Close()
		go r.Record(t.Context(), audit.Platform, event("apply"))
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		begun := time.Now()
		wantUnavailable(t, r.Record(ctx, audit.Platform, event("apply")))
		if took := time.Since(begun); took != 10*time.Millisecond {
			t.Fatalf("it took %v", took)
		}
		time.Sleep(5 * time.Second)
		if len(p.sizes) != 1 {
			t.Fatalf("what was given up before it left was proposed: %v", p.sizes)
		}
	})
}

func TestRecordRepeatsAnUnknownOutcomeUnderItsID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &proposer{do: func(_ context.Context, try int, _ *command.AppendAudit) error {
			if try < 4 {
				return fmt.Errorf("leader lost: %w", cluster.ErrUnknownOutcome)
			}
			return nil
		}}
		r := newRecorder(t, p)
		defer r.Close()
		if err := r.Record(t.Context(), audit.Platform, event("apply")); err != nil {
			t.Fatal(err)
		}
		if len(p.ids) != 4 || p.ids[0] != p.ids[3] || p.ids[0] == "" {
			t.Fatalf("ids %v", p.ids)
		}
	})
}

func TestOneBadEventHarmsNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &proposer{do: func(_ context.Context, _ int, cmd *command.AppendAudit) error {
			time.Sleep(time.Millisecond)
			for _, e := range cmd.Entries {
				if e.Event.Action == "bad" {
					return bulkhead.E(bulkhead.InvalidRequest, "invalid_command", "no")
				}
			}
			return nil
		}}
		r := newRecorder(t, p)
		defer r.Close()
		var wg sync.WaitGroup
		for i := range 10 {
			wg.Go(func() {
				action := "apply"
				if i == 5 {
					action = "bad"
				}
				if err := r.Record(t.Context(), audit.Platform, event(action)); (err == nil) != (i != 5) {
					t.Errorf("event %d: %v", i, err)
				}
			})
		}
		wg.Wait()
	})
}

func TestRecordRefusesWhatThisNodeCannotKeep(t *testing.T) {
	p := &proposer{do: func(context.Context, int, *command.AppendAudit) error { return nil }}
	r := NewRecorder(RecorderConfig{Node: "n1", Proposer: p, Keeper: keeper{errors.New("disk full")}})
	defer r.Close()
	wantUnavailable(t, r.Record(t.Context(), audit.Platform, event("apply")))
	if len(p.ids) != 0 {
		t.Fatal("it was proposed")
	}
}

// TestEventsAreCutToTheirBounds: the real state machine takes what the recorder
// makes of the worst events.
func TestEventsAreCutToTheirBounds(t *testing.T) {
	c := newCluster()
	r := newRecorder(t, c)
	defer r.Close()
	long := strings.Repeat("<\xff€", 40<<10)
	for name, change := range map[string]func(*audit.Event){
		"texts": func(e *audit.Event) {
			for _, s := range []*string{&e.Op, &e.Action, &e.Object, &e.Reason, &e.Code, &e.Request, &e.Actor.Subject, &e.Actor.Name, &e.Actor.Method, &e.Actor.Issuer, &e.Actor.Role, &e.Actor.Address} {
				*s = long
			}
		},
		"details": func(e *audit.Event) {
			e.Before, _ = json.Marshal(long)
			e.After, _ = json.Marshal(strings.Repeat("<>&", 10<<10))
		},
		"no json":  func(e *audit.Event) { e.After = json.RawMessage("{") },
		"bad utf8": func(e *audit.Event) { e.After = json.RawMessage("\"\xff\"") },
		"no op":    func(e *audit.Event) { e.Op, e.Actor.Method = "", "" },
		"controls": func(e *audit.Event) { e.Object, e.Reason = "a\nb\x00", "\x1b[2J" },
	} {
		e := event("apply")
		change(&e)
		if err := r.Record(t.Context(), audit.Platform, e); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	n := 0
	c.View().AuditSince(0, func(l state.AuditLine) bool {
		rec, err := audit.ReadRecord(l.Line)
		if err != nil || !utf8.Valid(l.Line) || strings.Contains(string(l.Line), "\n") || len(rec.Object) > audit.MaxText {
			t.Errorf("record %d: %v", l.Seq, err)
		}
		n++
		return true
	})
	if n != 6 {
		t.Fatalf("%d records", n)
	}
}

func FuzzClip(f *testing.F) {
	f.Add("text", []byte(`{"a":1}`))
	f.Add("\xff", []byte(`{`))
	f.Fuzz(func(t *testing.T, text string, detail []byte) {
		e := event("apply")
		e.Object, e.After = text, detail
		e = clip(e)
		if len(e.Object) > audit.MaxText || !utf8.ValidString(e.Object) {
			t.Fatalf("object %q", e.Object)
		}
		shown, err := json.Marshal(e.After)
		if len(e.After) > 0 && (err != nil || len(shown) > audit.MaxDetail || !utf8.Valid(shown)) {
			t.Fatalf("detail %q: %v", e.After, err)
		}
		if _, _, err := (audit.Log{Name: audit.Platform}).Append(1, e); err != nil {
			t.Fatal(err)
		}
	})
}
