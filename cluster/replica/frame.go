package replica

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/worker/control"
	"github.com/bulkhead-ai/bulkhead/worker/sealed"
)

// The streams between nodes carry frames (integers big endian):
//
//	+------------+------+------+
//	| length (4) | type | body |
//	+------------+------+------+
//
// length counts type and body. A stream is opened by who owns a tenant or wants
// to (the asker), for one tenant and one epoch:
//
//	asker -> keeper                  keeper -> asker
//	Hello(version, tenant, epoch,
//	      receiver)                  -
//	Seal(epoch)                      Position
//	Ask(seq)                         Point: the last group end at or before it
//	Fetch(point)                     Run: what follows the point, empty at the end
//	Truncate(from, to, reset)        Position
//	Append(run)                      Acked(seq), once synced; one may answer several
//	Whole(seq)                       Position
//
// Everything may be answered by Error, which ends the stream. A keeper does what
// was asked in order, and answers in order.
type frameType byte

const (
	typeHello    frameType = 1
	typeSeal     frameType = 2
	typePosition frameType = 3
	typeAsk      frameType = 4
	typePoint    frameType = 5
	typeFetch    frameType = 6
	typeRun      frameType = 7
	typeAppend   frameType = 8
	typeAcked    frameType = 9
	typeTruncate frameType = 10
	typeWhole    frameType = 11
	typeError    frameType = 15
)

// protocolVersion is in every Hello; a keeper answers no other.
const protocolVersion = 1

const (
	maxRun   = control.MaxPiece // bytes of groups in a frame
	maxName  = 256              // of a tenant, of a receiver
	maxText  = 1024             // of an error
	maxFrame = maxRun + 2048
)

// Point is a place between two groups of a journal: the record before it, and
// the chain hash there. The zero Point is the beginning.
type Point struct {
	Seq  uint64
	Hash [32]byte
}

// Position is where a copy ends, and what it is worth.
type Position struct {
	Epoch bulkhead.Epoch // of the last group, 0 = the copy is empty
	Point
	Receiver   string // identity of the disk
	Base       Point  // where the copy begins: retention gave up what is before
	Damaged    bool   // what follows Point is there and cannot be read
	Incomplete bool   // not to be counted: the copy lost something that it acknowledged
}

// counts reports whether the copy may vouch for anything.
func (p *Position) counts() bool { return !p.Damaged && !p.Incomplete }

// run is some consecutive groups of one segment as they are in its file. At
// offset 0 the header's sector is before them.
type run struct {
	prev    Point // before the first group
	segment uint64
	offset  int64
	data    []byte
	// committed is how far a quorum holds the journal, as the owner knows: what
	// retention gives up may go when the record that says so is among that.
	committed uint64
}

type hello struct {
	tenant   bulkhead.TenantID
	epoch    bulkhead.Epoch
	receiver string
}

type truncation struct {
	from, to Point
	reset    bool // remove everything and begin at to
}

// frame is a decoded frame; which fields are set follows from its type. Data of
// a run is in the reader's buffer.
type frame struct {
	typ      frameType
	hello    hello
	epoch    bulkhead.Epoch // Seal
	position Position
	seq      uint64 // Ask, Acked, Whole; Point: what was asked
	point    Point  // Point, Fetch
	run      run
	truncate truncation
	refusal  *refusal
}

// appendTo appends the frame in its wire form.
func (f *frame) appendTo(dst []byte) []byte {
	start := len(dst)
	dst = append(dst, 0, 0, 0, 0, byte(f.typ))
	switch f.typ {
	case typeHello:
		dst = append(dst, protocolVersion)
		dst = appendText(dst, string(f.hello.tenant))
		dst = binary.BigEndian.AppendUint64(dst, uint64(f.hello.epoch))
		dst = appendText(dst, f.hello.receiver)
	case typeSeal:
		dst = binary.BigEndian.AppendUint64(dst, uint64(f.epoch))
	case typePosition:
		dst = appendPosition(dst, &f.position)
	case typeAsk, typeAcked, typeWhole:
		dst = binary.BigEndian.AppendUint64(dst, f.seq)
	case typeFetch:
		dst = appendPoint(dst, f.point)
	case typePoint:
		dst = appendPoint(binary.BigEndian.AppendUint64(dst, f.seq), f.point)
	case typeRun, typeAppend:
		dst = appendPoint(dst, f.run.prev)
		dst = binary.BigEndian.AppendUint64(dst, f.run.segment)
		dst = binary.BigEndian.AppendUint64(dst, uint64(f.run.offset))
		dst = binary.BigEndian.AppendUint64(dst, f.run.committed)
		dst = append(dst, f.run.data...)
	case typeTruncate:
		dst = appendPoint(appendPoint(dst, f.truncate.from), f.truncate.to)
		dst = append(dst, flags(f.truncate.reset))
	case typeError:
		dst = append(dst, f.refusal.code)
		dst = binary.BigEndian.AppendUint64(dst, uint64(f.refusal.promised))
		dst = appendText(dst, f.refusal.text)
	}
	binary.BigEndian.PutUint32(dst[start:], uint32(len(dst)-start-4))
	return dst
}

func appendText(dst []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint16(dst, uint16(len(s))), s...)
}

func appendPoint(dst []byte, p Point) []byte {
	return append(binary.BigEndian.AppendUint64(dst, p.Seq), p.Hash[:]...)
}

func appendPosition(dst []byte, p *Position) []byte {
	dst = binary.BigEndian.AppendUint64(dst, uint64(p.Epoch))
	dst = appendPoint(appendPoint(dst, p.Point), p.Base)
	dst = append(dst, flags(p.Damaged, p.Incomplete))
	return appendText(dst, p.Receiver)
}

func flags(set ...bool) (b byte) {
	for i, is := range set {
		if is {
			b |= 1 << i
		}
	}
	return b
}

// readFrame reads a frame into buf, which is returned, maybe grown. io.EOF says
// that there is none.
func readFrame(r *bufio.Reader, buf []byte) (frame, []byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return frame{}, buf, err
	}
	n := int(binary.BigEndian.Uint32(head[:]))
	if n < 1 || n > maxFrame {
		return frame{}, buf, fmt.Errorf("%w: frame of %d bytes", ErrProtocol, n)
	}
	if cap(buf) < n {
		buf = make([]byte, n)
	}
	buf = buf[:n]
	if _, err := io.ReadFull(r, buf); err != nil {
		return frame{}, buf, fmt.Errorf("read frame: %w", err)
	}
	f, err := parseFrame(buf)
	return f, buf, err
}

// parseFrame decodes a frame without its length. It takes any input.
func parseFrame(b []byte) (frame, error) {
	f := frame{typ: frameType(b[0])}
	p := parser{rest: b[1:]}
	switch f.typ {
	case typeHello:
		if v := p.byte(); v != protocolVersion && !p.bad {
			return frame{}, fmt.Errorf("%w: version %d, this node speaks %d", ErrProtocol, v, protocolVersion)
		}
		f.hello = hello{bulkhead.TenantID(p.text(maxName)), bulkhead.Epoch(p.uint64()), p.text(maxName)}
	case typeSeal:
		f.epoch = bulkhead.Epoch(p.uint64())
	case typePosition:
		f.position = p.position()
	case typeAsk, typeAcked, typeWhole:
		f.seq = p.uint64()
	case typeFetch:
		f.point = p.point()
	case typePoint:
		f.seq, f.point = p.uint64(), p.point()
	case typeRun, typeAppend:
		f.run = p.run()
	case typeTruncate:
		f.truncate = truncation{p.point(), p.point(), p.flags(1)&1 != 0}
	case typeError:
		f.refusal = &refusal{p.byte(), bulkhead.Epoch(p.uint64()), p.text(maxText)}
	default:
		return frame{}, fmt.Errorf("%w: frame of type %d", ErrProtocol, f.typ)
	}
	if p.bad || len(p.rest) > 0 {
		return frame{}, fmt.Errorf("%w: malformed frame of type %d", ErrProtocol, f.typ)
	}
	return f, nil
}

// parser takes values off the front; bad says that they were not there.
type parser struct {
	rest []byte
	bad  bool
}

func (p *parser) take(n int) []byte {
	if p.bad || n > len(p.rest) {
		p.bad = true
		return make([]byte, n)
	}
	b := p.rest[:n]
	p.rest = p.rest[n:]
	return b
}

func (p *parser) byte() byte     { return p.take(1)[0] }
func (p *parser) uint64() uint64 { return binary.BigEndian.Uint64(p.take(8)) }

func (p *parser) text(most int) string {
	n := int(binary.BigEndian.Uint16(p.take(2)))
	if n > most {
		p.bad = true
		return ""
	}
	return string(p.take(n))
}

// flags takes a byte of so many flags.
func (p *parser) flags(n int) byte {
	b := p.byte()
	p.bad = p.bad || b>>n != 0
	return b
}

func (p *parser) point() Point {
	pt := Point{Seq: p.uint64(), Hash: [32]byte(p.take(32))}
	p.bad = p.bad || pt.Seq == 0 && pt.Hash != [32]byte{}
	return pt
}

func (p *parser) position() Position {
	pos := Position{Epoch: bulkhead.Epoch(p.uint64()), Point: p.point(), Base: p.point()}
	b := p.flags(2)
	pos.Damaged, pos.Incomplete = b&1 != 0, b&2 != 0
	pos.Receiver = p.text(maxName)
	return pos
}

func (p *parser) run() run {
	r := run{prev: p.point(), segment: p.uint64(), offset: int64(p.uint64()), committed: p.uint64()}
	r.data, p.rest = p.rest, nil
	p.bad = p.bad || r.offset < 0 || r.offset > sealed.MaxSegment || r.offset%sealed.SectorSize != 0 ||
		len(r.data) > maxRun || len(r.data)%sealed.SectorSize != 0
	return r
}
