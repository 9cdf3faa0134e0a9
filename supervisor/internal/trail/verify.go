package trail

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/bulkhead-ai/bulkhead/cluster/audit"
	"github.com/bulkhead-ai/bulkhead/worker/receipt"
)

// LogReport is what a walk says of one log.
type LogReport struct {
	Log         string    `json:"log"`
	OK          bool      `json:"ok"`          // every record, checkpoint and the state agree
	Records     uint64    `json:"records"`     // that the log has, as the state knows
	Root        string    `json:"root"`        // of its tree, base64; empty when it is not ok
	Checkpoints int       `json:"checkpoints"` // that were checked
	Signed      uint64    `json:"signed"`      // records that the newest checkpoint covers
	SetAside    int       `json:"set_aside"`   // files of damage that was found before
	Findings    []Finding `json:"findings,omitempty"`
}

// catchUp is how long a walk waits for a state that knows less than the disk:
// after a start it may be on its way.
const catchUp = 5 * time.Second

// Verify holds every log's copy against its chain, its tree, the state and all
// kept checkpoints, and calls fn for each. log chooses one; empty = all. It
// changes nothing; what it finds is repaired afterwards, if it can be. An error
// means that it could not be done, or is fn's; not that something is wrong.
func (s *Store) Verify(ctx context.Context, log string, fn func(LogReport) error) error {
	if log != "" && !validLog(log) {
		return fmt.Errorf("verify: no log is named %.80q", log)
	}
	for _, l := range s.cfg.View().AuditLogs() { // a folder that was removed is no copy
		if _, err := s.copy(l.Name); err != nil {
			return err
		}
	}
	for _, c := range s.all() {
		if log != "" && c.log != log {
			continue
		}
		r, err := s.check(ctx, c, false)
		if err != nil {
			return fmt.Errorf("verify %s: %w", c.log, err)
		}
		if !r.OK {
			c.mu.Lock()
			c.suspect = true
			c.mu.Unlock()
			s.rouse()
		}
		if err := fn(r); err != nil {
			return err
		}
	}
	return nil
}

// check walks one copy, and repairs it if it may.
func (s *Store) check(ctx context.Context, c *copyOf, mend bool) (LogReport, error) {
	s.mending.Lock() // a file must not be replaced while another walk reads it
	defer s.mending.Unlock()
	truth, err := s.settled(ctx, c)
	if err != nil {
		return LogReport{}, err
	}
	c.mu.Lock()
	c.suspect = false // what is found wrong from now on sets it again
	c.mu.Unlock()
	w := &walk{store: s, copy: c, truth: truth, mend: mend}
	if err := w.run(ctx); err != nil {
		c.mu.Lock()
		c.suspect = true
		c.mu.Unlock()
		return LogReport{}, err
	}
	r := LogReport{Log: c.log, Records: truth.Size, Findings: w.findings, SetAside: c.damagedFiles(), OK: true}
	for _, f := range w.findings {
		r.OK = r.OK && f.Repaired
	}
	if !r.OK {
		return r, nil
	}
	c.mu.Lock()
	c.made = false
	c.mu.Unlock()
	return r, s.checkTree(ctx, c, truth, &r)
}

// settled answers how far the log goes as of a state of which everything is on
// disk, and which knows no less than the disk does, if that can be.
func (s *Store) settled(ctx context.Context, c *copyOf) (audit.Log, error) {
	limit := time.NewTimer(catchUp)
	defer limit.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		view := s.cfg.View()
		if s.seen.Load() != view.AuditCount() {
			if err := s.follow(); err != nil {
				return audit.Log{}, err
			}
		}
		truth, _ := view.AuditLog(c.log)
		if c.end() <= truth.Size {
			return truth, nil
		}
		select {
		case <-tick.C:
		case <-limit.C:
			return truth, nil
		case <-ctx.Done():
			return audit.Log{}, ctx.Err()
		}
	}
}

// checkTree reads the log from its beginning and holds its tree against the
// state and the checkpoints.
func (s *Store) checkTree(ctx context.Context, c *copyOf, truth audit.Log, r *LogReport) error {
	notes, broken, err := s.checkpointsOf(c)
	if err != nil {
		return err
	}
	roots := map[uint64]receipt.Hash{} // what checkpoints say
	for _, n := range notes {
		if prior, ok := roots[n.Size]; ok && prior != n.Root {
			r.find(n.Size, "two signed checkpoints of it contradict each other")
		}
		if n.Size > truth.Size {
			r.find(n.Size, fmt.Sprintf("a signed checkpoint names it, and the log ends at %d", truth.Size))
		}
		roots[n.Size] = n.Root
		r.Signed, r.Checkpoints = max(r.Signed, n.Size), r.Checkpoints+1
	}
	for _, f := range broken {
		r.find(f.From, f.Why)
	}
	tree := new(receipt.Frontier)
	err = c.each(ctx, truth.Size, func(l *line) error {
		tree.Append(l.hash)
		if want, ok := roots[l.seq]; ok && tree.Root() != want {
			r.find(l.seq, "a signed checkpoint says that another history leads to it")
		}
		return nil
	})
	if err != nil {
		return err
	}
	want, err := truth.Root()
	if err != nil {
		return err
	}
	if got := tree.Root(); tree.Size() != truth.Size || got != want {
		r.find(truth.Size, "the tree is not the state's")
	} else {
		r.Root = base64.StdEncoding.EncodeToString(got[:])
	}
	return nil
}

func (r *LogReport) find(seq uint64, why string) {
	r.OK, r.Root = false, ""
	r.Findings = append(r.Findings, Finding{From: seq, To: seq, Why: why})
}

var errEnough = errors.New("enough")

// each calls fn for the records 1..size as they are on disk.
func (c *copyOf) each(ctx context.Context, size uint64, fn func(*line) error) error {
	firsts, err := listSegments(c.dir)
	if err != nil {
		return err
	}
	for _, first := range firsts {
		if err := ctx.Err(); err != nil {
			return err
		}
		lines, _, err := readSegment(c.log, filepath.Join(c.dir, segmentName(first)))
		if err != nil {
			return err
		}
		for i := range lines {
			if lines[i].seq == 0 || lines[i].seq > size {
				continue
			}
			if err := fn(&lines[i]); errors.Is(err, errEnough) {
				return nil
			} else if err != nil {
				return err
			}
		}
	}
	return nil
}
