package trail

import (
	"context"
	"errors"
	"fmt"

	"github.com/bulkhead-ai/bulkhead/cluster/state"
	"github.com/bulkhead-ai/bulkhead/worker/receipt"
	"go.uber.org/zap"
)

// puzzle finds, among lines from anywhere, the records lo to hi: those that lead
// to a hash that is known.
type puzzle struct {
	lo, hi uint64
	link   string // hash of record hi in hex, if known
	known  bool

	pieces map[uint64][]line
	chosen []line // chosen[i] is record lo+i; seq 0: none fits
	bad    int

	before      string // hash of record lo-1 in hex,
	beforeKnown bool   // if it is known
}

func newPuzzle(lo, hi uint64, link string, known bool) *puzzle {
	p := &puzzle{lo: lo, hi: hi, link: link, known: known, pieces: map[uint64][]line{}}
	p.solve()
	return p
}

func (p *puzzle) add(lines []line) {
	for _, l := range lines {
		if l.seq >= p.lo && l.seq <= p.hi {
			p.pieces[l.seq] = append(p.pieces[l.seq], l)
		}
	}
}

// solve chooses a piece for every record, from the last to the first, and
// answers the records for which there is none, ascending. Before a record
// without a piece the first one is taken on trust.
func (p *puzzle) solve() (bad []uint64) {
	p.chosen = make([]line, p.hi-p.lo+1)
	p.bad = 0
	link, known := p.link, p.known
	for seq := p.hi; seq >= p.lo && seq > 0; seq-- {
		at := -1
		for i := range p.pieces[seq] {
			l := &p.pieces[seq][i]
			if (!known || linkTo(seq, l.hash) == link) && (seq > 1 || l.prev == "") {
				at = i
				break
			}
		}
		if at < 0 {
			bad, known = append(bad, seq), false
			continue
		}
		l := p.pieces[seq][at]
		p.chosen[seq-p.lo] = l
		link, known = l.prev, true
	}
	p.before, p.beforeKnown, p.bad = link, known, len(bad)
	for i, j := 0, len(bad)-1; i < j; i, j = i+1, j-1 {
		bad[i], bad[j] = bad[j], bad[i]
	}
	return bad
}

// solved says that every record was found, and is proven.
func (p *puzzle) solved() bool { return p.bad == 0 && p.known }

func (p *puzzle) lines() []line { return p.chosen }

// explain words the records that were not found, as runs. file is what the
// segment's file holds.
func (p *puzzle) explain(bad []uint64, file []line) []Finding {
	var out []Finding
	for _, seq := range bad {
		why := p.why(seq, file)
		if n := len(out); n > 0 && out[n-1].To+1 == seq && out[n-1].Why == why {
			out[n-1].To = seq
			continue
		}
		out = append(out, Finding{From: seq, To: seq, Why: why})
	}
	return out
}

func (p *puzzle) why(seq uint64, file []line) string {
	if len(p.pieces[seq]) > 0 {
		return "it was changed: what comes after it names another record"
	}
	if i := seq - p.lo; i < uint64(len(file)) && file[i].seq == 0 {
		return "it is no record of this log, or cannot be read"
	}
	return "it is missing"
}

func hashOf(b []byte) (h receipt.Hash) {
	copy(h[:], b)
	return h
}

// remembered answers the records of a log that the state still keeps.
func (s *Store) remembered(log string, from, to uint64) []line {
	var out []line
	s.cfg.View().AuditSince(0, func(l state.AuditLine) bool {
		if l.Log == log && l.Seq >= from && l.Seq <= to {
			out = append(out, readLine(log, l.Line))
		}
		return true
	})
	return out
}

// fetch asks another node. It answers what came, whatever the error.
func (s *Store) fetch(ctx context.Context, node, log string, from, to uint64) ([]line, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	var out []line
	size := 0
	err := s.cfg.Peers.Fetch(ctx, node, log, from, to, func(raw []byte) error {
		if size += len(raw); size > maxFetch {
			return errors.New("it sends too much")
		}
		if l := readLine(log, append([]byte(nil), raw...)); l.seq > 0 {
			out = append(out, l)
		}
		return nil
	})
	if err != nil {
		return out, fmt.Errorf("fetch %s from node %s: %w", log, node, err)
	}
	return out, nil
}

func (s *Store) peerFailed(node, log string, err error) {
	s.cfg.Log.Warn("fetch audit records", zap.String("node", node), zap.String("log", log), zap.Error(err))
}
