package logbook

import (
	"fmt"

	"github.com/dgraph-io/badger/v4"
	"go.uber.org/zap"
)

// batch is one writer's uncommitted blocks. Every transaction carries the state
// that is right after it, so a crash between two loses nothing but time.
type batch struct {
	s     *store
	txn   *badger.Txn
	state state
	block block
	left  int64 // bytes that txn may still take
}

func (s *store) begin() *batch {
	return &batch{s: s, txn: s.db.NewTransaction(true), state: s.state, left: s.db.MaxBatchSize() / 2}
}

func (b *batch) abandon() { b.txn.Discard() }

// put adds the receipt of journal record seq.
func (b *batch) put(seq uint64, raw []byte) error {
	id, err := requestOf(raw)
	if err != nil { // the journal holds it, so the view must: found by everything but its request
		b.s.log.Warn("receipt without a request", zap.Uint64("record", seq), zap.Error(err))
	}
	b.block.add(seq, id, raw)
	if !b.block.full() {
		return nil
	}
	if err := b.flush(); err != nil {
		return err
	}
	if b.left > maxValue {
		return nil
	}
	if err := b.commit(seq); err != nil {
		return err
	}
	if err := b.s.flatten(); err != nil {
		return err
	}
	next := b.s.begin()
	next.block.plain = b.block.plain
	*b = *next
	return nil
}

// flush moves the block into the transaction.
func (b *batch) flush() error {
	if b.block.count == 0 {
		return nil
	}
	b.state.count += uint64(b.block.count)
	b.block.ordinal = b.state.count
	key, value := b.block.seal(b.s.aead)
	b.left -= int64(len(key) + len(value))
	b.s.fresh += int64(len(key) + len(value))
	b.block = block{plain: b.block.plain[:0]}
	return b.txn.SetEntry(badger.NewEntry(key, value))
}

// commit makes the receipts visible together with the fact that the view is now
// complete up to record applied.
func (b *batch) commit(applied uint64) error {
	if err := b.flush(); err != nil {
		return err
	}
	b.state.applied = applied
	if err := b.txn.SetEntry(badger.NewEntry([]byte{stateKey}, b.state.encode())); err != nil {
		return err
	}
	if err := b.txn.Commit(); err != nil {
		return err
	}
	b.s.state = b.state
	b.s.done.Store(applied)
	return nil
}

// maintain does what Badger's compactors would, and deletes blocks whose records
// the journal dropped.
func (s *store) maintain(oldest uint64) error {
	if oldest > s.cut {
		if err := s.prune(oldest); err != nil {
			return fmt.Errorf("prune logbook: %w", err)
		}
	}
	return s.flatten()
}

// flatten keeps level 0 small. Without compactors Badger would stop all writes
// for ever once it holds stallLevel0 tables.
func (s *store) flatten() error {
	if s.fresh < memtableBytes/2 {
		return nil
	}
	s.fresh = 0
	if s.db.Levels()[0].NumTables < maxLevel0 {
		return nil
	}
	if err := s.db.Flatten(1); err != nil {
		return fmt.Errorf("flatten logbook: %w", err)
	}
	return nil
}

// prune deletes the blocks whose records are all below oldest.
func (s *store) prune(oldest uint64) error {
	for {
		more, err := s.pruneSome(oldest)
		if err != nil {
			return err
		}
		if !more {
			s.cut = oldest
			return nil
		}
	}
}

// pruneSome deletes a transaction's worth of blocks, oldest first.
func (s *store) pruneSome(oldest uint64) (more bool, err error) {
	const blocks = 500
	txn := s.db.NewTransaction(true)
	defer txn.Discard()
	next := s.state
	var gone [][]byte
	it := txn.NewIterator(badger.IteratorOptions{Reverse: true, PrefetchValues: false, Prefix: []byte{blockPrefix}})
	defer it.Close()
	// The greatest key that a block can have.
	end := append([]byte{blockPrefix}, make([]byte, blockKeyLen)...)
	for i := range end[1:] {
		end[1+i] = 0xff
	}
	for it.Seek(end); it.Valid() && len(gone) < blocks; it.Next() {
		var k blockKey
		if err := k.decode(it.Item().Key()); err != nil {
			return false, err
		}
		if k.last >= oldest {
			break
		}
		gone = append(gone, it.Item().KeyCopy(nil))
		next.base = k.ordinal
	}
	it.Close()
	if len(gone) == 0 {
		return false, nil
	}
	for _, key := range gone {
		if err := txn.Delete(key); err != nil {
			return false, err
		}
	}
	if err := txn.Set([]byte{stateKey}, next.encode()); err != nil {
		return false, err
	}
	if err := txn.Commit(); err != nil {
		return false, err
	}
	s.state = next
	return len(gone) == blocks, nil
}
