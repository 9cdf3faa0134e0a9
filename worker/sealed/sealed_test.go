package sealed

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/bulkhead-ai/bulkhead"
)

func sign(body []byte) []byte {
	sum := sha256.Sum256(body)
	return sum[:]
}

// segment is a file in the making.
type segment struct {
	h     Header
	bytes []byte // what was written
	chain [32]byte
	ends  []int64 // of the groups
	all   []Group
}

func newSegment(size int64, first uint64) *segment {
	h := Header{Size: size, First: first, Salt: [32]byte{1, 2, 3}}
	if first > 1 {
		h.PrevFirst, h.PrevEnd, h.Chain = 1, 4096, [32]byte{9}
	}
	return &segment{h: h, bytes: h.Append(nil, sign), chain: h.Chain}
}

// add writes a group of n records with a text of the given length.
func (s *segment) add(epoch bulkhead.Epoch, n uint64, text int, floor uint64) {
	first := s.h.First
	if len(s.all) > 0 {
		first = s.all[len(s.all)-1].Last + 1
	}
	g := Group{First: first, Last: first + n - 1, Epoch: epoch, Floor: floor, Oldest: 1, Incarnation: 7}
	body := g.AppendHead(nil, text, &s.chain)
	body = append(body, bytes.Repeat([]byte{byte(first)}, text)...)
	s.chain = Link(&s.chain, first, body)
	s.bytes = AppendSectors(s.bytes, s.h.Seed(), first, floor, body)
	g.Chain, g.Bytes = s.chain, int64(SectorsFor(text))*SectorSize
	s.all = append(s.all, g)
	s.ends = append(s.ends, int64(len(s.bytes)))
}

// file is the segment as it lies on the disk.
func (s *segment) file() []byte {
	return append(slices.Clone(s.bytes), make([]byte, s.h.Size-int64(len(s.bytes)))...)
}

func example() *segment {
	s := newSegment(32<<10, 5)
	for i, text := range []int{17, SectorRoom - HeadSize, SectorRoom - HeadSize + 1, 3000, 20} {
		floor := s.h.First - 1
		if i > 0 {
			floor = s.all[i-1].Last
		}
		s.add(bulkhead.Epoch(2+i/3), uint64(i+1), text, floor)
	}
	return s
}

func TestHeader(t *testing.T) {
	s := example()
	h, err := ParseHeader(s.bytes)
	if err != nil || h != s.h {
		t.Fatalf("%+v, %v, want %+v", h, err, s.h)
	}
	body, mac := SplitHeader(s.bytes[:SectorSize])
	if !bytes.Equal(mac, sign(body)) {
		t.Error("the authenticator is another one")
	}
	for i := range SectorSize { // every byte counts, for those without the key too
		bad := slices.Clone(s.bytes[:SectorSize])
		bad[i] ^= 1
		if _, err := ParseHeader(bad); !errors.Is(err, ErrHeader) {
			t.Fatalf("byte %d changed: %v", i, err)
		}
	}
	for name, change := range map[string]func(*Header){
		"no record":         func(h *Header) { h.First = 0 },
		"small":             func(h *Header) { h.Size = SectorSize },
		"odd size":          func(h *Header) { h.Size += 1 },
		"huge":              func(h *Header) { h.Size = MaxSegment + SectorSize },
		"negative":          func(h *Header) { h.Size = -SectorSize },
		"first with chain":  func(h *Header) { h.First, h.PrevFirst, h.PrevEnd = 1, 0, 0 },
		"no predecessor":    func(h *Header) { h.PrevFirst = 0 },
		"later predecessor": func(h *Header) { h.PrevFirst = h.First },
		"empty predecessor": func(h *Header) { h.PrevEnd = SectorSize },
	} {
		h := s.h
		change(&h)
		if _, err := ParseHeader(h.Append(nil, sign)); !errors.Is(err, ErrHeader) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestNames(t *testing.T) {
	for _, first := range []uint64{1, 0xabcdef, 1<<64 - 1} {
		if got, ok := ParseSegmentName(SegmentName(first)); !ok || got != first {
			t.Errorf("%d: %d, %v", first, got, ok)
		}
	}
	for _, bad := range []string{"", ".seg", "1.seg", SegmentName(0), "000000000000000G.seg", "00000000000000AB.seg", "0000000000000001.seg.", "-000000000000001.seg", "spare-1"} {
		if _, ok := ParseSegmentName(bad); ok {
			t.Errorf("%q is a segment", bad)
		}
	}
}

func TestReader(t *testing.T) {
	s := example()
	r := NewReader(bytes.NewReader(s.file()), s.h)
	at := int64(SectorSize)
	prev := s.h.Chain
	for i, want := range s.all {
		if !r.Next() || r.Group() != want || r.Offset() != s.ends[i] || r.Seq() != want.Last+1 || r.Chain() != want.Chain {
			t.Fatalf("group %d: %+v at %d, %v, want %+v", i, r.Group(), r.Offset(), r.Err(), want)
		}
		g, err := ParseGroup(&s.h, prev, want.First, s.bytes[at:])
		if err != nil || g != want {
			t.Fatalf("group %d alone: %+v, %v", i, g, err)
		}
		at, prev = s.ends[i], want.Chain
	}
	if r.Next() || r.Err() != nil {
		t.Fatalf("another group %+v, %v", r.Group(), r.Err())
	}
	if end, err := r.Tail(); err != nil || end != at {
		t.Errorf("tail ends at %d, %v, want %d", end, err, at)
	}
	limited := NewReader(bytes.NewReader(s.file()), s.h)
	limited.Limit(s.ends[1])
	for limited.Next() {
	}
	if limited.Seq() != s.all[1].Last+1 || limited.Err() != nil {
		t.Errorf("limited to record %d, %v", limited.Seq()-1, limited.Err())
	}
	short := NewReader(bytes.NewReader(s.bytes), s.h) // not allocated yet
	for short.Next() {
	}
	if end, err := short.Tail(); err != nil || end != at || short.Seq() != r.Seq() {
		t.Errorf("short file: record %d, tail %d, %v", short.Seq(), end, err)
	}
}

// TestParseGroupRefuses: what is torn, of another place or history, or impossible.
func TestParseGroupRefuses(t *testing.T) {
	s := newSegment(8<<10, 1)
	s.add(3, 2, 900, 0)
	data, want := s.bytes[SectorSize:], s.all[0]
	other := newSegment(8<<10, 1)
	other.h.Salt[0]++
	for name, c := range map[string]struct {
		h    *Header
		prev [32]byte
		seq  uint64
		data []byte
		err  error
	}{
		"nothing":         {&s.h, s.h.Chain, 1, nil, ErrNoGroup},
		"zeros":           {&s.h, s.h.Chain, 1, make([]byte, 4096), ErrNoGroup},
		"cut":             {&s.h, s.h.Chain, 1, data[:SectorSize], ErrNoGroup},
		"torn":            {&s.h, s.h.Chain, 1, append(slices.Clone(data[:SectorSize]), make([]byte, SectorSize)...), ErrNoGroup},
		"another record":  {&s.h, s.h.Chain, 2, data, ErrNoGroup},
		"another segment": {&other.h, s.h.Chain, 1, data, ErrNoGroup},
		"another history": {&s.h, [32]byte{1}, 1, data, ErrForged},
		"second sector":   {&s.h, s.h.Chain, 1, data[SectorSize:], ErrNoGroup},
	} {
		if g, err := ParseGroup(c.h, c.prev, c.seq, c.data); !errors.Is(err, c.err) {
			t.Errorf("%s: %+v, %v", name, g, err)
		}
	}
	for name, change := range map[string]func(g *Group, length *int){
		"no epoch":          func(g *Group, _ *int) { g.Epoch = 0 },
		"no records":        func(g *Group, _ *int) { g.Last = g.First - 1 },
		"checkpoint ahead":  func(g *Group, _ *int) { g.Checkpoint = g.Last + 1 },
		"kept from nowhere": func(g *Group, _ *int) { g.Oldest = 0 },
		"kept ahead":        func(g *Group, _ *int) { g.Oldest = g.Last + 1 },
		"longer":            func(_ *Group, length *int) { *length += SectorSize },
		"shorter":           func(_ *Group, length *int) { *length -= 1 },
	} {
		g, length := want, 900
		change(&g, &length)
		body := append(g.AppendHead(nil, length, &s.h.Chain), bytes.Repeat([]byte{5}, 900)...)
		raw := AppendSectors(nil, s.h.Seed(), want.First, 0, body)
		if got, err := ParseGroup(&s.h, s.h.Chain, 1, raw); !errors.Is(err, ErrForged) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

// TestEpochsDoNotFall: a group of an older epoch behind a newer one is a forgery.
func TestEpochsDoNotFall(t *testing.T) {
	s := newSegment(8<<10, 1)
	s.add(3, 1, 10, 0)
	s.add(2, 1, 10, 0)
	r := NewReader(bytes.NewReader(s.file()), s.h)
	if !r.Next() || r.Next() || !errors.Is(r.Err(), ErrForged) {
		t.Errorf("read %+v, %v", r.Group(), r.Err())
	}
}

// TestTail: what a power cut leaves is cut, what was claimed and is missing is
// damage.
func TestTail(t *testing.T) {
	s := example()
	last := s.ends[len(s.ends)-2] // of the group before the last one
	for name, c := range map[string]struct {
		hurt func(b []byte)
		ok   bool
	}{
		"whole":                    {func([]byte) {}, true},
		"last group missing":       {func(b []byte) { clear(b[last:]) }, true},
		"claimed group missing":    {func(b []byte) { clear(b[s.ends[0]:s.ends[1]]) }, false},
		"flipped bit":              {func(b []byte) { b[s.ends[len(s.ends)-1]+700] ^= 1 }, false},
		"flipped bit in a group":   {func(b []byte) { b[last+100] ^= 1 }, false},
		"first sector of an older": {func(b []byte) { copy(b[s.h.Size-SectorSize:], b[SectorSize:2*SectorSize]) }, false},
	} {
		b := s.file()
		c.hurt(b)
		r := NewReader(bytes.NewReader(b), s.h)
		for r.Next() {
		}
		if end, err := r.Tail(); r.Err() != nil || (err == nil) != c.ok {
			t.Errorf("%s: record %d, tail %d, %v, %v", name, r.Seq(), end, err, r.Err())
		}
	}
}

type brokenFile struct{ err error }

func (f brokenFile) ReadAt([]byte, int64) (int, error) { return 0, f.err }

func TestReadErrors(t *testing.T) {
	r := NewReader(brokenFile{io.ErrUnexpectedEOF}, example().h)
	if r.Next() || !errors.Is(r.Err(), io.ErrUnexpectedEOF) {
		t.Errorf("%v", r.Err())
	}
	if _, err := r.Tail(); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("tail: %v", err)
	}
}

func FuzzParseHeader(f *testing.F) {
	s := example()
	f.Add(s.bytes[:SectorSize])
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := ParseHeader(b)
		if err != nil {
			return
		}
		_, mac := SplitHeader(b[:SectorSize])
		if again := h.Append(nil, func([]byte) []byte { return mac }); !bytes.Equal(again, b[:SectorSize]) {
			t.Errorf("another header: %x, %x", again, b[:SectorSize])
		}
	})
}

// FuzzParseGroup gives the parser sectors whose checksums are right, with any
// contents.
func FuzzParseGroup(f *testing.F) {
	s := example()
	f.Add(s.bytes[SectorSize:], uint64(5), false)
	f.Add(s.bytes[SectorSize+sectorHead:], uint64(1), true)
	f.Fuzz(func(t *testing.T, data []byte, seq uint64, seal bool) {
		if seal {
			n := min((len(data)+SectorRoom-1)/SectorRoom, maxSectors)
			var raw []byte
			for i := range n {
				b := make([]byte, SectorSize)
				copy(b[sectorHead:], data[i*SectorRoom:])
				sector{uint16(i), uint16(n), seq, 0}.put(b, s.h.Seed())
				raw = append(raw, b...)
			}
			data = raw
		}
		g, err := ParseGroup(&s.h, s.h.Chain, seq, data)
		if err != nil {
			if !errors.Is(err, ErrNoGroup) && !errors.Is(err, ErrForged) {
				t.Errorf("%v", err)
			}
			return
		}
		if g.First != seq || g.Last < g.First || g.Epoch == 0 || g.Bytes <= 0 || g.Bytes > int64(len(data)) || g.Floor >= g.First {
			t.Errorf("impossible group %+v", g)
		}
	})
}

// FuzzReader gives the reader changes of a valid segment: it must not read more
// than was written, and what it reads must have been written.
func FuzzReader(f *testing.F) {
	s := example()
	f.Add(uint32(600), []byte{1})
	f.Add(uint32(0), []byte{})
	f.Fuzz(func(t *testing.T, at uint32, b []byte) {
		bad := s.file()
		copy(bad[int(at)%len(bad):], b)
		r := NewReader(bytes.NewReader(bad), s.h)
		for i := 0; r.Next(); i++ {
			if i >= len(s.all) || r.Group() != s.all[i] {
				t.Fatalf("group %d: %+v", i, r.Group())
			}
		}
		if end, err := r.Tail(); err == nil && end < r.Offset() {
			t.Errorf("tail ends at %d before %d", end, r.Offset())
		}
	})
}

func BenchmarkReader(b *testing.B) {
	s := newSegment(4<<20, 1)
	rng := rand.New(rand.NewPCG(1, 2))
	for len(s.bytes) < 3<<20 {
		s.add(1, 1, 200+rng.IntN(2000), 0)
	}
	file := s.file()
	b.SetBytes(int64(len(s.bytes)))
	for b.Loop() {
		r := NewReader(bytes.NewReader(file), s.h)
		for r.Next() {
		}
		if r.Err() != nil || r.Offset() != int64(len(s.bytes)) {
			b.Fatal(r.Err())
		}
	}
}
