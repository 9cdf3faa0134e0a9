package edge

import (
	"fmt"
	"io"
	"sync"
)

// A direction of a stream holds idleBuffer bytes, and a busyBuffer only while
// its reads fill what they get: ten thousand streams that wait for their next
// event hold 80 MiB and not 640.
const (
	idleBuffer = 4 << 10
	busyBuffer = 32 << 10
)

// buffers hands out byte buffers. It is safe for concurrent use.
type buffers struct{ idle, busy sync.Pool }

func (b *buffers) getIdle() *[idleBuffer]byte {
	if p, ok := b.idle.Get().(*[idleBuffer]byte); ok {
		return p
	}
	return new([idleBuffer]byte)
}

func (b *buffers) getBusy() *[busyBuffer]byte {
	if p, ok := b.busy.Get().(*[busyBuffer]byte); ok {
		return p
	}
	return new([busyBuffer]byte)
}

// copyBounded copies until src ends or either fails, and reports which did:
// toDst is true when dst took no more. The end of src is no error.
func copyBounded(pool *buffers, dst io.Writer, src io.Reader) (toDst bool, err error) {
	idle := pool.getIdle()
	defer pool.idle.Put(idle)
	var busy *[busyBuffer]byte
	defer func() {
		if busy != nil {
			pool.busy.Put(busy)
		}
	}()
	for {
		buf := idle[:]
		if busy != nil {
			buf = busy[:]
		}
		n, err := src.Read(buf)
		if n > 0 {
			if _, werr := dst.Write(buf[:n]); werr != nil {
				return true, fmt.Errorf("write: %w", werr)
			}
		}
		if err == io.EOF {
			return false, nil
		}
		if err != nil {
			return false, fmt.Errorf("read: %w", err)
		}
		switch full := n == len(buf); {
		case full && busy == nil:
			busy = pool.getBusy()
		case !full && busy != nil:
			pool.busy.Put(busy)
			busy = nil
		}
	}
}
