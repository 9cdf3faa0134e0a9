package replica

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"net"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/worker/control"
	"github.com/bulkhead-ai/bulkhead/worker/sealed"
)

// record is what the tests write: a number that is nowhere else, under an epoch.
type record struct {
	epoch bulkhead.Epoch
	id    uint64
}

// penman writes a journal as a worker does, in the same format, without
// encrypting: the sealed text of a group is the ids of its records.
type penman struct {
	j      *journal
	epoch  bulkhead.Epoch
	size   int64 // of new segments
	salt   uint64
	oldest uint64
	synced uint64 // floor
	held   uint64 // by a quorum: what retention may go by
	pieces func(control.Piece)
}

func openPenman(dir Dir, epoch bulkhead.Epoch, size int64, pieces func(control.Piece)) (*penman, error) {
	if err := dir.Lock(); err != nil {
		return nil, err
	}
	j, err := openJournal(dir, &spares{dir: dir, minFree: -1}, 0, false)
	if err != nil {
		return nil, err
	}
	if j.damage != nil {
		return nil, j.damage
	}
	return &penman{j: j, epoch: epoch, size: size, oldest: max(j.oldest, 1), synced: j.head.Seq, pieces: pieces}, nil
}

// write puts down one group, with padding bytes in its text.
func (p *penman) write(ids []uint64, padding int) error {
	text := binary.BigEndian.AppendUint64(nil, uint64(len(ids)))
	for _, id := range ids {
		text = binary.BigEndian.AppendUint64(text, id)
	}
	text = append(text, bytes.Repeat([]byte{7}, padding)...)
	j := p.j
	g := sealed.Group{First: j.head.Seq + 1, Last: j.head.Seq + uint64(len(ids)), Epoch: p.epoch, Oldest: p.oldest, Incarnation: uint64(p.epoch)}
	body := append(g.AppendHead(nil, len(text), &j.head.Hash), text...)
	var h sealed.Header
	fits := false
	if len(j.segs) > 0 {
		h = j.segs[len(j.segs)-1]
		fits = j.off+int64(sealed.SectorsFor(len(text)))*sealed.SectorSize <= h.Size
	}
	r := run{prev: j.head, segment: h.First, offset: j.off, committed: p.held}
	if fits {
		r.data = sealed.AppendSectors(nil, h.Seed(), g.First, p.synced, body)
		if r.offset == sealed.SectorSize { // the header of an empty journal
			fits = false
		}
	}
	if !fits {
		if err := p.sync(); err != nil {
			return err
		}
		next := sealed.Header{Size: p.size, First: g.First, Chain: j.head.Hash}
		if len(j.segs) > 0 && g.First > 1 {
			next.PrevFirst, next.PrevEnd = h.First, j.off
		}
		p.salt++
		next.Salt = sha256.Sum256(fmt.Appendf(nil, "%d %d %d", p.epoch, p.salt, ids[0]))
		data := next.Append(nil, func(body []byte) []byte { s := sha256.Sum256(body); return s[:] })
		r = run{prev: j.head, segment: next.First, committed: p.held, data: sealed.AppendSectors(data, next.Seed(), g.First, g.First-1, body)}
	}
	if err := j.append(r, p.epoch); err != nil {
		return err
	}
	if r.offset == 0 {
		p.synced = j.synced
	}
	p.pieces(control.Piece{Segment: r.segment, Offset: r.offset, Data: bytes.Clone(r.data)})
	return nil
}

func (p *penman) sync() error {
	if err := p.j.sync(); err != nil {
		return err
	}
	p.synced = p.j.synced
	return nil
}

// Close leaves the files as they are.
func (p *penman) Close() {
	p.j.dirty = false
	p.j.Close()
	p.j.dir.Close()
}

// readRecords reads the records of a journal from its files.
func readRecords(dir Dir) (all map[uint64]record, base, head Point, err error) {
	firsts, err := segmentNames(dir)
	all = map[uint64]record{}
	if err != nil || len(firsts) == 0 {
		return all, Point{}, Point{}, err
	}
	w := walker{dir: dir}
	defer w.Close()
	if err := w.open(firsts[0]); err != nil {
		return nil, Point{}, Point{}, err
	}
	base = w.at
	for {
		f, err := dir.Open(sealed.SegmentName(w.h.First), false)
		if err != nil {
			return nil, base, head, err
		}
		r := sealed.NewReader(f, w.h)
		for r.Next() {
			g, text := r.Group(), r.Text()
			for i := uint64(0); i <= g.Last-g.First; i++ {
				all[g.First+i] = record{g.Epoch, binary.BigEndian.Uint64(text[8+8*i:])}
			}
		}
		head = Point{r.Seq() - 1, r.Chain()}
		f.Close()
		if r.Err() != nil {
			return nil, base, head, r.Err()
		}
		if err := w.open(head.Seq + 1); err != nil || w.at != head {
			return all, base, head, nil
		}
	}
}

// pieceSocket connects a penman with Own: what it writes is queued without a
// bound, as the kernel's buffer of a socket would be for so little.
type pieceSocket struct {
	conn  net.Conn
	queue chan control.Piece
}

func newPieceSocket(conn net.Conn) *pieceSocket {
	s := &pieceSocket{conn: conn, queue: make(chan control.Piece, 1<<16)}
	go func() {
		var buf []byte
		for p := range s.queue {
			var err error
			if buf, err = control.WritePiece(conn, p, buf); err != nil {
				break
			}
		}
		for range s.queue {
		}
	}()
	return s
}

func (s *pieceSocket) Close() {
	close(s.queue)
	s.conn.Close()
}
