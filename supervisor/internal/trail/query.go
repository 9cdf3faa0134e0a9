package trail

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/audit"
)

// Query chooses records of one log. A zero field chooses all.
type Query struct {
	Log     string // required
	From    time.Time
	To      time.Time // before
	Action  string
	Actor   string // subject, name or address
	Result  audit.Result
	Request string
	Object  string
	Tenant  string
	Limit   int // at most so many, the newest; 0 = all
}

// matches says whether a record is chosen.
func (q *Query) matches(r *audit.Record) bool {
	at := time.UnixMilli(r.At)
	switch {
	case !q.From.IsZero() && at.Before(q.From), !q.To.IsZero() && !at.Before(q.To):
		return false
	case q.Actor != "" && !slices.Contains([]string{r.Actor.Subject, r.Actor.Name, r.Actor.Address}, q.Actor):
		return false
	}
	for want, have := range map[string]string{q.Action: r.Action, string(q.Result): string(r.Result), q.Request: r.Request, q.Object: r.Object, q.Tenant: string(r.Tenant)} {
		if want != "" && want != have {
			return false
		}
	}
	return true
}

// Search calls fn for the chosen records, newest first, as lines without a
// newline. Everything that was committed before the call is considered; a log in
// which nothing was written has no records. It reads back to From: memory is
// bounded by a segment. Errors are ctx's, fn's, or why this node's copy cannot be
// read; a filtered list proves nothing of what it leaves out.
func (s *Store) Search(ctx context.Context, q Query, fn func(line []byte) error) error {
	if !validLog(q.Log) {
		return fmt.Errorf("no log is named %.80q", q.Log)
	}
	if err := s.Await(ctx); err != nil {
		return err
	}
	s.mu.Lock()
	c := s.copies[q.Log]
	s.mu.Unlock()
	if c == nil {
		return nil
	}
	firsts, err := listSegments(c.dir)
	if err != nil {
		return err
	}
	left := q.Limit
	for _, first := range slices.Backward(firsts) {
		if err := ctx.Err(); err != nil {
			return err
		}
		lines, _, err := readSegment(c.log, filepath.Join(c.dir, segmentName(first)))
		if err != nil {
			return err
		}
		err = q.search(lines, &left, fn)
		if errors.Is(err, errEnough) {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// search goes through a segment from its end. errEnough: what is left is too
// old, or there are as many as were asked for.
func (q *Query) search(lines []line, left *int, fn func([]byte) error) error {
	for i := range slices.Backward(lines) {
		l := &lines[i]
		if l.seq == 0 {
			continue
		}
		if !q.From.IsZero() && time.UnixMilli(l.at).Before(q.From) {
			return errEnough // times never go back in a log
		}
		r, err := audit.ReadRecord(l.raw)
		if err != nil || !q.matches(&r) {
			continue
		}
		if err := fn(l.raw); err != nil {
			return err
		}
		if *left--; *left == 0 {
			return errEnough
		}
	}
	return nil
}

// LogName answers the log of a tenant; false: no tenant can have the name.
func LogName(tenant string) (string, bool) {
	log := audit.TenantLog(bulkhead.TenantID(tenant))
	return log, validLog(log)
}

// TenantOf is LogName backwards; false: the log is no tenant's.
func TenantOf(log string) (bulkhead.TenantID, bool) {
	tenant, ok := strings.CutPrefix(log, audit.TenantLog(""))
	return bulkhead.TenantID(tenant), ok && validLog(log)
}
