package openai

// out collects the events of one batch that go on. As long as they are one
// piece of the batch nothing is copied.
type out struct {
	src    []byte
	start  int
	end    int
	buf    []byte // reused between batches
	copied bool
}

func (o *out) reset(src []byte) { *o = out{src: src, buf: o.buf[:0]} }

// keep takes the events src[start:end] as they are.
func (o *out) keep(start, end int) {
	switch {
	case o.copied:
		o.buf = append(o.buf, o.src[start:end]...)
	case o.start == o.end:
		o.start, o.end = start, end
	case o.end == start:
		o.end = end
	default:
		o.copy()
		o.buf = append(o.buf, o.src[start:end]...)
	}
}

// put takes an event that was changed.
func (o *out) put(event []byte) {
	o.copy()
	o.buf = append(o.buf, event...)
}

func (o *out) copy() {
	if !o.copied {
		o.buf = append(o.buf[:0], o.src[o.start:o.end]...)
		o.copied = true
	}
}

// bytes returns what was kept; nil when nothing was.
func (o *out) bytes() []byte {
	if o.copied {
		return o.buf
	}
	if o.start == o.end {
		return nil
	}
	return o.src[o.start:o.end:o.end]
}
