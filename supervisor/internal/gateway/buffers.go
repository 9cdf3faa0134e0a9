package gateway

import "sync"

// The buffer sizes. A request and its answer live in a small one as long as they
// fit, so that ten thousand waiting streams hold 80 MiB and not 800.
const (
	smallBuffer = 8 << 10
	copyBuffer  = 32 << 10
	largeBuffer = 80 << 10 // a whole body of wholeBody bytes behind its head
)

// buffers hands out byte buffers without allocating in the steady state. It is
// safe for concurrent use.
type buffers struct{ small, copy, large sync.Pool }

// get returns a buffer of exactly size, one of the sizes above.
func (p *buffers) get(size int) []byte {
	switch size {
	case smallBuffer:
		if b, ok := p.small.Get().(*[smallBuffer]byte); ok {
			return b[:]
		}
	case copyBuffer:
		if b, ok := p.copy.Get().(*[copyBuffer]byte); ok {
			return b[:]
		}
	case largeBuffer:
		if b, ok := p.large.Get().(*[largeBuffer]byte); ok {
			return b[:]
		}
	}
	return make([]byte, size)
}

// put takes back what get returned, at any length but from its start. Buffers of
// other sizes are left to the garbage collector.
func (p *buffers) put(b []byte) {
	switch cap(b) {
	case smallBuffer:
		p.small.Put((*[smallBuffer]byte)(b[:smallBuffer]))
	case copyBuffer:
		p.copy.Put((*[copyBuffer]byte)(b[:copyBuffer]))
	case largeBuffer:
		p.large.Put((*[largeBuffer]byte)(b[:largeBuffer]))
	}
}
