package transport

import (
	"bytes"
	"testing"
)

func FuzzPreface(f *testing.F) {
	f.Add(appendPreface(nil, "replica"))
	f.Add(appendPreface(nil, "call"))
	f.Add([]byte{0})
	f.Add([]byte{255, 'a'})
	f.Add([]byte{3, 'A', 'b', 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		r := bytes.NewReader(data)
		name, err := readPreface(r)
		if err != nil {
			return
		}
		if !validService(name) {
			t.Fatalf("took %q", name)
		}
		read := data[:len(data)-r.Len()]
		if !bytes.Equal(appendPreface(nil, name), read) {
			t.Fatalf("%q was written as %x", name, read)
		}
	})
}

func FuzzCall(f *testing.F) {
	f.Add(appendFrame(appendFrame(nil, []byte(`{"method":"echo","timeout_ms":5}`)), []byte(`"hello"`)))
	f.Add([]byte{255, 255, 255, 255})
	f.Add(appendFrame(nil, []byte(`{`)))
	f.Fuzz(func(t *testing.T, data []byte) {
		head, in, err := readCall(bytes.NewReader(data))
		if err == nil && len(in)+8 > len(data) {
			t.Fatalf("call %+v with %d bytes out of %d", head, len(in), len(data))
		}
	})
}

func FuzzWireJoinsHeaderAndBody(f *testing.F) {
	f.Add([]byte("body"), true)
	f.Add([]byte{}, false)
	f.Add(make([]byte, muxHeader), true)
	f.Fuzz(func(t *testing.T, body []byte, ping bool) {
		var sink sinkConn
		w := newWire(&sink, &sink)
		var want []byte
		write := func(b []byte) {
			n, err := w.Write(b)
			if n != len(b) || err != nil {
				t.Fatalf("wrote %d of %d, %v", n, len(b), err)
			}
			want = append(want, b...)
		}
		if ping {
			write([]byte{0, 2, 0, 1, 0, 0, 0, 0, 0, 0, 0, 9})
		}
		head := make([]byte, muxHeader)
		head[10], head[11] = byte(len(body)>>8), byte(len(body))
		if len(body) > writePiece/2 {
			return
		}
		write(head)
		if len(body) > 0 {
			write(body)
		}
		if !bytes.Equal(sink.data, want) {
			t.Fatalf("sent %x, want %x", sink.data, want)
		}
	})
}
