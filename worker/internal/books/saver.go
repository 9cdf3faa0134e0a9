package books

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/bulkhead-ai/bulkhead/worker/durable"
	"github.com/bulkhead-ai/bulkhead/worker/internal/journal"
)

// saver keeps checkpoints of the counters in files of their own, sealed; the
// journal holds each one's position and digest. A file that is missing or does
// not match its note is ignored, and recovery reads more of the journal, as long
// as the journal still has it; afterwards it is damage.
type saver struct {
	dir  string
	aead cipher.AEAD

	mu         sync.Mutex
	checkpoint uint64 // records up to here are in the newest checkpoint
	oldest     uint64 // recovery from it reads from here on
	applied    uint64 // records up to here are in the ledger
}

// A note, the data of a checkpoint record:
//
//	+----------+--------------------+---------------------+
//	| position | oldest open intent | SHA-256 of the file |
//	| 8, BE    | 8, BE              | 32                  |
//	+----------+--------------------+---------------------+
const (
	noteHead = 16
	noteSize = noteHead + sha256.Size
)

func newSaver(dir string, dataKey []byte) (*saver, error) {
	key, err := hkdf.Key(sha256.New, dataKey, nil, "bulkhead checkpoint v1", 32)
	if err != nil {
		return nil, fmt.Errorf("derive checkpoint key: %w", err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("derive checkpoint key: %w", err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, fmt.Errorf("derive checkpoint key: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make checkpoint directory: %w", err)
	}
	return &saver{dir: dir, aead: aead}, nil
}

func (s *saver) file(at uint64) string { return filepath.Join(s.dir, fmt.Sprintf("%020d", at)) }

// save makes a checkpoint file durable and returns the note for the journal, and
// the file's contents.
func (s *saver) save(at, oldest uint64, snapshot []byte) (note, sealed []byte, err error) {
	note = binary.BigEndian.AppendUint64(make([]byte, 0, noteSize), at)
	note = binary.BigEndian.AppendUint64(note, oldest)
	sealed = s.aead.Seal(nil, nil, snapshot, note)
	if err := durable.Replace(s.file(at), sealed); err != nil {
		return nil, nil, fmt.Errorf("write checkpoint: %w", err)
	}
	sum := sha256.Sum256(sealed)
	return append(note, sum[:]...), sealed, nil
}

// noted is called when the journal holds the note of the checkpoint at: older
// ones are of no use any more.
func (s *saver) noted(at, oldest uint64) {
	s.inForce(at, oldest)
	s.removeBut(at)
}

// inForce says which checkpoint the next recovery will find.
func (s *saver) inForce(at, oldest uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.checkpoint, s.oldest = at, oldest
}

func (s *saver) removeBut(at uint64) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return // the next checkpoint tries again
	}
	for _, e := range entries {
		if name := filepath.Join(s.dir, e.Name()); name != s.file(at) {
			os.Remove(name)
		}
	}
}

// newest reads the checkpoint that the journal notes last: its position, the
// record to read from and the counters. All are zero when it notes none.
func (s *saver) newest(j *journal.Journal) (at, oldest uint64, snapshot []byte, err error) {
	seq := j.LastCheckpoint()
	if seq == 0 {
		return 0, 0, nil, nil
	}
	var note []byte
	stop := errors.New("found")
	err = j.Replay(seq, func(r journal.Record) error {
		note = append(note, r.Data...)
		return stop
	})
	if !errors.Is(err, stop) {
		return 0, 0, nil, fmt.Errorf("read checkpoint note: %w", err)
	} else if len(note) != noteSize {
		return 0, 0, nil, fmt.Errorf("read checkpoint note: %d bytes, want %d", len(note), noteSize)
	}
	at, oldest = binary.BigEndian.Uint64(note), binary.BigEndian.Uint64(note[8:])
	file, err := os.ReadFile(s.file(at))
	if err == nil {
		snapshot, err = s.open(file, note)
	}
	if err != nil { // another node's, or damaged: the journal may have it
		if file, jerr := s.parts(j, at, seq); jerr == nil && len(file) > 0 {
			snapshot, err = s.open(file, note)
		}
	}
	if err != nil {
		return at, oldest, nil, fmt.Errorf("read checkpoint: %w", err)
	}
	return at, oldest, snapshot, nil
}

// A part of a checkpoint in the journal, the data of a snapshot record:
//
//	+----------+---------------------------+
//	| position | the next bytes of the file |
//	| 8, BE    | at most partSize           |
//	+----------+---------------------------+
const partSize = 64 << 10

// share appends the file of the checkpoint at to the journal, in parts. Recovery
// reads from at+1 at the latest, so retention keeps them as long as the note.
func (s *saver) share(j *journal.Journal, at uint64, file []byte) error {
	for part := range slices.Chunk(file, partSize) {
		_, err := j.Append(journal.KindSnapshot, journal.Written, func(dst []byte, _ uint64) []byte {
			return append(binary.BigEndian.AppendUint64(dst, at), part...)
		})
		if err != nil {
			return fmt.Errorf("put checkpoint into the journal: %w", err)
		}
	}
	return nil
}

// parts puts together what share has appended before the note.
func (s *saver) parts(j *journal.Journal, at, note uint64) (file []byte, err error) {
	stop := errors.New("note")
	err = j.Replay(at+1, func(r journal.Record) error {
		if r.Seq >= note {
			return stop
		}
		if r.Kind == journal.KindSnapshot && len(r.Data) > 8 && binary.BigEndian.Uint64(r.Data) == at {
			file = append(file, r.Data[8:]...)
		}
		return nil
	})
	if !errors.Is(err, stop) {
		return nil, fmt.Errorf("read checkpoint from the journal: %w", err)
	}
	return file, nil
}

// shared reports whether the journal holds the newest checkpoint itself.
func (s *saver) shared(j *journal.Journal) bool {
	s.mu.Lock()
	at := s.checkpoint
	s.mu.Unlock()
	file, err := s.parts(j, at, j.LastCheckpoint())
	return err == nil && len(file) > 0
}

func (s *saver) open(sealed, note []byte) ([]byte, error) {
	if sum := sha256.Sum256(sealed); !bytes.Equal(sum[:], note[noteHead:]) {
		return nil, errors.New("checkpoint does not match its note")
	}
	snapshot, err := s.aead.Open(nil, nil, sealed, note[:noteHead])
	if err != nil {
		return nil, fmt.Errorf("open checkpoint: %w", err)
	}
	return snapshot, nil
}

// booked notes how far the ledger is.
func (s *saver) booked(seq uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.applied = max(s.applied, seq)
}

func (s *saver) last() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.checkpoint
}

// covered is the last record that no recovery needs any more.
func (s *saver) covered() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.oldest == 0 {
		return 0
	}
	return min(s.oldest-1, s.applied)
}

// openIntents are the intents without outcome, by their reservation's place in
// the journal. Its methods run under the journal's lock, in the order of records.
type openIntents struct {
	mu  sync.Mutex
	seq map[uint64]uint64 // reservation -> record of its newest intent
}

func (o *openIntents) add(reservation, seq uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.seq[reservation] = seq
}

func (o *openIntents) remove(reservation uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.seq, reservation)
}

// oldest returns the first record of an open intent, or none.
func (o *openIntents) oldest(none uint64) uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, seq := range o.seq {
		none = min(none, seq)
	}
	return none
}
