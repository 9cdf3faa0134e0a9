package bookstest

import (
	"bytes"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/bulkhead-ai/bulkhead/worker/control"
	"github.com/bulkhead-ai/bulkhead/worker/sealed"
)

// Copies is the far end of a replication socket: it keeps what a journal writes,
// as a node would that has not the tenant's key, and acknowledges it unless told
// otherwise. It is safe for concurrent use.
type Copies struct {
	t    testing.TB
	conn net.Conn
	done sync.WaitGroup

	mu    sync.Mutex
	held  bool
	files map[uint64]*copied // by first record
	last  uint64             // newest record that a whole group brought
	acked uint64
}

// copied is the copy of one segment.
type copied struct {
	header sealed.Header
	bytes  []byte
	seq    uint64 // of the next record
	chain  [32]byte
}

// NewCopies returns the copies and the worker's end of the socket. They begin with
// what is in the journal directory dir, if there is one, and end with the socket or
// the test.
func NewCopies(t testing.TB, dir string) (*Copies, io.ReadWriteCloser) {
	t.Helper()
	ours, theirs := net.Pipe()
	c := &Copies{t: t, conn: ours, files: map[uint64]*copied{}}
	c.readFrom(dir)
	c.done.Go(c.run)
	t.Cleanup(func() { ours.Close(); theirs.Close(); c.done.Wait() })
	return c, theirs
}

// Hold keeps acknowledgements back from now on.
func (c *Copies) Hold() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held = true
}

// Release acknowledges everything again.
func (c *Copies) Release() {
	c.mu.Lock()
	c.held = false
	last := c.last
	c.mu.Unlock()
	_ = control.WriteAcked(c.conn, last) // it may have ended
}

// Close breaks the connection off.
func (c *Copies) Close() {
	c.conn.Close()
	c.done.Wait()
}

// Last is the newest record that the copies hold, Acked the newest that they
// have acknowledged.
func (c *Copies) Last() (last, acked uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.last, c.acked
}

// WriteTo makes a journal directory of what the copies hold.
func (c *Copies) WriteTo(dir string) {
	c.t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		c.t.Fatal(err)
	}
	for first, f := range c.files {
		whole := append(append([]byte(nil), f.bytes...), make([]byte, f.header.Size-int64(len(f.bytes)))...)
		if err := os.WriteFile(filepath.Join(dir, sealed.SegmentName(first)), whole, 0o600); err != nil {
			c.t.Fatal(err)
		}
	}
}

func (c *Copies) readFrom(dir string) {
	c.t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*.seg"))
	if err != nil {
		c.t.Fatal(err)
	}
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			c.t.Fatal(err)
		}
		h, err := sealed.ParseHeader(b)
		if err != nil {
			c.t.Fatal(err)
		}
		r := sealed.NewReader(bytes.NewReader(b), h)
		for r.Next() {
		}
		if r.Seq() == h.First { // a header alone: it comes again with the first group
			continue
		}
		c.files[h.First] = &copied{header: h, bytes: b[:r.Offset()], seq: r.Seq(), chain: r.Chain()}
		c.last = max(c.last, r.Seq()-1)
	}
}

func (c *Copies) run() {
	var buf []byte
	for {
		p, again, err := control.ReadPiece(c.conn, buf)
		if err != nil {
			return
		}
		buf = again
		if ack, ok := c.take(p); ok {
			if control.WriteAcked(c.conn, ack) != nil {
				return
			}
		}
	}
}

// take keeps a piece, which must continue what is there.
func (c *Copies) take(p control.Piece) (ack uint64, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f, data := c.files[p.Segment], p.Data
	if p.Offset == 0 {
		h, err := sealed.ParseHeader(data)
		if err != nil || h.First != p.Segment || h.First != c.last+1 {
			c.t.Errorf("segment %d after record %d: %+v, %v", p.Segment, c.last, h, err)
			return 0, false
		}
		f = &copied{header: h, bytes: append([]byte(nil), data[:sealed.SectorSize]...), seq: h.First, chain: h.Chain}
		c.files[p.Segment], data = f, data[sealed.SectorSize:]
	} else if f == nil || p.Offset != int64(len(f.bytes)) {
		c.t.Errorf("piece of segment %d at %d does not continue the copy", p.Segment, p.Offset)
		return 0, false
	}
	g, err := sealed.ParseGroup(&f.header, f.chain, f.seq, data)
	if err != nil || g.Bytes != int64(len(data)) {
		c.t.Errorf("piece of segment %d at %d: %+v, %v", p.Segment, p.Offset, g, err)
		return 0, false
	}
	f.bytes = append(f.bytes, data...)
	f.seq, f.chain, c.last = g.Last+1, g.Chain, g.Last
	if c.held {
		return 0, false
	}
	c.acked = c.last
	return c.last, true
}
