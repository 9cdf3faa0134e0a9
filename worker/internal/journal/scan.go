package journal

import (
	"fmt"

	"github.com/bulkhead-ai/bulkhead/worker/sealed"
)

// scanner reads the groups of one segment in order, and their records.
type scanner struct {
	*sealed.Reader
	seal  *sealer
	plain []byte // the records of the group that next read
	err   error
}

func (k *keys) scanner(f File, h *sealed.Header) (*scanner, error) {
	seal, err := k.sealer(h)
	if err != nil {
		return nil, err
	}
	return &scanner{Reader: sealed.NewReader(f, *h), seal: seal}, nil
}

// next reads a group. It returns false at the end and at the first group that is
// not whole; err tells why only if the file could not be read or a group is a
// forgery.
func (s *scanner) next() bool {
	if s.err != nil {
		return false
	}
	before := s.Chain()
	if !s.Next() {
		s.err = s.Err()
		return false
	}
	g := s.Group()
	plain, ok := s.seal.open(g, s.Text(), &before)
	if !ok {
		s.err = fmt.Errorf("group of record %d: %w", g.First, sealed.ErrForged)
		return false
	}
	s.plain = plain
	return true
}

// records calls fn for every record of the group from sequence number from on.
func (s *scanner) records(from uint64, fn func(Record) error) error {
	rest, g := s.plain, s.Group()
	for seq := g.First; seq <= g.Last; seq++ {
		r, more, err := splitFrame(rest)
		if err != nil {
			return fmt.Errorf("record %d: %w", seq, err)
		}
		rest = more
		if seq < from {
			continue
		}
		r.Seq, r.Epoch = seq, g.Epoch
		if err := fn(r); err != nil {
			return err
		}
	}
	if len(rest) != 0 {
		return fmt.Errorf("group of record %d: %w", g.First, errFrame)
	}
	return nil
}
