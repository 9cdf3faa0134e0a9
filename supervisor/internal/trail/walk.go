package trail

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/bulkhead-ai/bulkhead/cluster/audit"
)

// Finding is a run of records that do not hold.
type Finding struct {
	From     uint64 `json:"from"` // first record
	To       uint64 `json:"to"`   // last record
	Why      string `json:"why"`
	Repaired bool   `json:"repaired,omitempty"` // it holds again
	Source   string `json:"source,omitempty"`   // where the records came from: state, or a node
}

// walk reads a copy from its end to its beginning. The state knows the hash of
// the last record, and each record that of the one before it: so every record is
// held against a hash that is known to be right, and the one that was changed is
// told from its neighbours. Memory is bounded by a segment.
type walk struct {
	store    *Store
	copy     *copyOf
	truth    audit.Log
	mend     bool
	findings []Finding

	next  uint64 // the record to be explained next
	link  string // its hash in hex,
	known bool   // if it is known
}

const fetchLines = 4096 // most records that are fetched into one segment

func (w *walk) run(ctx context.Context) error {
	w.next, w.link, w.known = w.truth.Size, linkTo(w.truth.Size, hashOf(w.truth.Head)), true
	firsts, err := listSegments(w.copy.dir)
	if err != nil {
		return err
	}
	for _, first := range slices.Backward(firsts) {
		if err := ctx.Err(); err != nil {
			return err
		}
		if first > w.next {
			w.beyond(first)
			continue
		}
		if err := w.segment(ctx, first); err != nil {
			return err
		}
	}
	if w.next > 0 {
		err = w.gap(ctx, 1)
	}
	slices.SortFunc(w.findings, func(a, b Finding) int { return int(int64(a.From) - int64(b.From)) })
	return err
}

// beyond finds records that the state does not know, unless it does meanwhile.
func (w *walk) beyond(seq uint64) {
	if now, _ := w.store.cfg.View().AuditLog(w.copy.log); seq <= now.Size {
		return
	}
	w.findings = append(w.findings, Finding{From: seq, To: max(seq, w.copy.end()), Why: fmt.Sprintf("the cluster's state knows only %d records", w.truth.Size)})
}

func (c *copyOf) end() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.size
}

// segment explains the records first to w.next by a file, or finds out why it
// cannot.
func (w *walk) segment(ctx context.Context, first uint64) error {
	lines, torn, err := readSegment(w.copy.log, filepath.Join(w.copy.dir, segmentName(first)))
	if err != nil {
		return err
	}
	inOrder := 0
	for inOrder < len(lines) && lines[inOrder].seq == first+uint64(inOrder) {
		inOrder++
	}
	end := first + uint64(inOrder) - 1
	orderly := inOrder == len(lines) && !torn
	switch {
	case end > w.next && w.next < w.truth.Size: // another file has them too
		orderly, inOrder = false, int(w.next-first+1)
	case end > w.truth.Size:
		w.beyond(w.truth.Size + 1)
	case orderly && inOrder > 0 && end < w.next:
		if err := w.gap(ctx, end+1); err != nil {
			return err
		}
	}
	p := newPuzzle(first, w.next, w.link, w.known)
	p.add(lines)
	bad := p.solve()
	if orderly && len(bad) == 0 {
		w.follow(p)
		return nil
	}
	var found []Finding
	if len(bad) > 0 {
		found = p.explain(bad, lines)
	} else {
		at := first + uint64(inOrder)
		found = []Finding{{From: at, To: at, Why: "it is not in its place, or something else is between the records"}}
	}
	source := ""
	if w.mend && w.known {
		if source, err = w.supply(ctx, p); err != nil {
			return err
		}
		if p.solved() {
			if err := w.replace(first, p); err != nil {
				return err
			}
		}
	}
	for _, f := range found {
		f.Repaired = w.mend && w.known && p.solved()
		if f.Repaired {
			f.Source = source
		}
		w.findings = append(w.findings, f)
	}
	w.follow(p)
	return nil
}

// follow goes on before the records of the puzzle.
func (w *walk) follow(p *puzzle) { w.next, w.link, w.known = p.lo-1, p.before, p.beforeKnown }

// gap deals with the records lo to w.next, which no file has.
func (w *walk) gap(ctx context.Context, lo uint64) error {
	found := Finding{From: lo, To: w.next, Why: "it is missing"}
	if lo < w.next {
		found.Why = "they are missing"
	}
	for w.mend && w.known && w.next >= lo {
		p := newPuzzle(max(lo, w.next-min(w.next, fetchLines)+1), w.next, w.link, true)
		source, err := w.supply(ctx, p)
		if err != nil {
			return err
		}
		if !p.solved() {
			break
		}
		if err := w.copy.insert(p.lo, p.lines()); err != nil {
			return err
		}
		found.Source = source
		w.follow(p)
	}
	if found.Repaired = w.next < lo; !found.Repaired {
		found.To, found.Source = w.next, ""
		w.next, w.known = lo-1, false
	}
	if found.Repaired && w.copy.made && lo == 1 {
		return nil // a new node has copied what it never had
	}
	w.findings = append(w.findings, found)
	return nil
}

// supply looks for the records that the puzzle lacks, in the state and on other
// nodes, until it is solved. It answers where they came from.
func (w *walk) supply(ctx context.Context, p *puzzle) (source string, err error) {
	if p.solved() {
		return "", nil
	}
	p.add(w.store.remembered(w.copy.log, p.lo, p.hi))
	if p.solve(); p.solved() {
		return "state", nil
	}
	if w.store.cfg.Peers == nil {
		return "", nil
	}
	for _, node := range w.store.cfg.Peers.Nodes() {
		lines, err := w.store.fetch(ctx, node, w.copy.log, p.lo, p.hi)
		if ctx.Err() != nil {
			return "", ctx.Err()
		}
		if err != nil {
			w.store.peerFailed(node, w.copy.log, err)
		}
		p.add(lines)
		if p.solve(); p.solved() {
			return node, nil
		}
	}
	return "", nil
}

// replace puts a right segment in the place of a damaged one. Records that were
// appended meanwhile stay.
func (w *walk) replace(first uint64, p *puzzle) error {
	c := w.copy
	c.mu.Lock()
	defer c.mu.Unlock()
	name := segmentName(first)
	now, _, err := readSegment(c.log, filepath.Join(c.dir, name))
	if err != nil {
		return err
	}
	lines := p.lines()
	for i := range now {
		if c.first != first {
			break // the records behind are in the next file
		}
		if last := &lines[len(lines)-1]; now[i].follows(last.seq, last.hash) {
			lines = append(lines, now[i])
		}
	}
	if err := setAside(c.dir, name); err != nil {
		return err
	}
	if err := writeSegment(c.dir, first, lines); err != nil {
		return err
	}
	return c.reload()
}

// insert stores records that were missing.
func (c *copyOf) insert(first uint64, lines []line) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, err := makeDir(filepath.Dir(c.dir), c.dir); err != nil {
		return err
	}
	if err := writeSegment(c.dir, first, lines); err != nil {
		return err
	}
	return c.reload()
}

// fetchTimeout bounds what one node may take to send a segment.
const fetchTimeout = 2 * time.Minute

// maxFetch bounds what one fetch may take of memory, in bytes.
const maxFetch = 64 << 20
