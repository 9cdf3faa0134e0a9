package trail

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"strings"
	"time"

	"github.com/bulkhead-ai/bulkhead/cluster/audit"
	"go.uber.org/zap"
)

// damage is what the last walk of a log left.
type damage struct {
	left   bool            // something could not be repaired
	untold bool            // something is no event yet
	told   map[uint64]bool // records whose damage is an event already
}

// Damaged counts the logs in which the last walk left something unrepaired; for
// an alarm.
func (s *Store) Damaged() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, d := range s.damaged {
		if d.left {
			n++
		}
	}
	return n
}

func (s *Store) runMending(ctx context.Context, t Teller) {
	scrub := time.NewTicker(s.cfg.Scrub)
	defer scrub.Stop()
	again := time.NewTicker(mendEvery)
	defer again.Stop()
	everything := true // what happened to the files while nobody looked
	for ctx.Err() == nil {
		s.mend(ctx, t, everything)
		everything = false
		select {
		case <-scrub.C:
			everything = true
		case <-s.wake:
		case <-again.C:
		case <-ctx.Done():
		}
	}
}

// mend walks every log, or those that are suspect or were left damaged, and
// repairs them. On a node that is alone, what was left stays.
func (s *Store) mend(ctx context.Context, t Teller, everything bool) {
	for _, c := range s.all() {
		if ctx.Err() != nil {
			return
		}
		s.mu.Lock()
		d := s.damaged[c.log]
		again := d != nil && (d.untold || d.left && s.cfg.Peers != nil)
		s.mu.Unlock()
		if !everything && !again && !c.isSuspect() {
			continue
		}
		r, err := s.check(ctx, c, true)
		if err != nil {
			s.cfg.Log.Warn("walk audit log", zap.String("log", c.log), zap.Error(err))
			continue
		}
		s.note(ctx, t, r)
	}
}

// note makes events of what a walk found, once each.
func (s *Store) note(ctx context.Context, t Teller, r LogReport) {
	s.mu.Lock()
	d := s.damaged[r.Log]
	if d == nil {
		d = &damage{told: map[uint64]bool{}}
		s.damaged[r.Log] = d
	}
	d.left, d.untold = !r.OK, false
	s.mu.Unlock()
	untold := false
	for _, f := range r.Findings {
		if d.told[f.From] && !f.Repaired {
			continue
		}
		s.cfg.Log.Error("audit log is damaged", zap.String("log", r.Log), zap.Uint64("from", f.From), zap.Uint64("to", f.To),
			zap.String("why", f.Why), zap.Bool("repaired", f.Repaired))
		if err := t.Record(ctx, audit.Platform, s.findingEvent(r.Log, f)); err != nil {
			s.cfg.Log.Warn("tell of a damaged audit log", zap.Error(err))
			untold = true
			continue
		}
		d.told[f.From] = true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	d.untold = untold
	if r.OK {
		clear(d.told) // the same damage may come again
	}
}

func (s *Store) findingEvent(log string, f Finding) audit.Event {
	after, err := json.Marshal(f)
	if err != nil {
		panic("internal error: encode finding: " + err.Error())
	}
	e := audit.Event{
		Op: strings.ToLower(rand.Text()), Phase: audit.Single, Action: ActionDamaged, Result: audit.Failed,
		Actor: audit.Actor{Method: "node", Subject: s.cfg.Node}, Object: "log " + log, After: after,
	}
	if f.Repaired {
		e.Action, e.Result = ActionRepaired, audit.Done
	}
	return e
}
