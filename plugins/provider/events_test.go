package provider

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

func TestEvents(t *testing.T) {
	for _, c := range []struct {
		name, in, out, flush string
		truncated            bool
	}{
		{"lf", "data: 1\n\ndata: 2\n\n", "data: 1\n\ndata: 2\n\n", "", false},
		{"crlf", "data: 1\r\n\r\ndata: 2\r\n\r\n", "data: 1\r\n\r\ndata: 2\r\n\r\n", "", false},
		{"mixed", "data: 1\n\r\ndata: 2\r\n\n", "data: 1\n\r\ndata: 2\r\n\n", "", false},
		{"byte order mark", "\xef\xbb\xbfdata: 1\n\n", "data: 1\n\n", "", false},
		{"mark only at the start", "data: 1\n\n\xef\xbb\xbfdata: 2\n\n", "data: 1\n\n\xef\xbb\xbfdata: 2\n\n", "", false},
		{"blank lines", "\n\n\ndata: 1\n\n\n", "\n\n\ndata: 1\n\n\n", "", false},
		{"comment", ": hi\n\n", ": hi\n\n", "", false},
		{"blank line missing", "data: 1\n\ndata: 2\n", "data: 1\n\n", "data: 2\n\n", false},
		{"done without line end", "data: [DONE]", "", "data: [DONE]\n\n", false},
		{"done with half a line end", "data: [DONE]\r", "", "data: [DONE]\n\n", false},
		{"cut in a line", "data: 1\n\ndata: {\"a", "data: 1\n\n", "", true},
		{"lone cr is no line end", "data: 1\r\rdata: 2\n\n", "data: 1\r\rdata: 2\n\n", "", false},
		{"empty", "", "", "", false},
	} {
		for size := 1; size <= len(c.in)+1; size++ {
			out, flush, truncated, err := split([]byte(c.in), size)
			if err != nil || out != c.out || flush != c.flush || truncated != c.truncated {
				t.Errorf("%s in chunks of %d: %q, %q, %v, %v; want %q, %q, %v", c.name, size, out, flush, truncated, err, c.out, c.flush, c.truncated)
			}
		}
	}
}

func split(in []byte, size int) (out, flush string, truncated bool, err error) {
	var e Events
	var b strings.Builder
	for len(in) > 0 && err == nil {
		n := min(size, len(in))
		chunk := bytes.Clone(in[:n])
		var got []byte
		got, err = e.Feed(chunk)
		b.Write(got)
		clear(chunk) // what was returned was written; what is kept must be a copy
		in = in[n:]
	}
	if err == nil {
		var f []byte
		f, truncated = e.Flush()
		flush = string(f)
	}
	return b.String(), flush, truncated, err
}

func TestEventTooLong(t *testing.T) {
	good := "data: 1\n\n"
	fits := "data: " + strings.Repeat("x", MaxEvent-len("data: \n\n")) + "\n\n"
	for _, size := range []int{1, 1000, 4096, 1 << 16, 4 << 20} {
		if out, _, _, err := split([]byte(good+fits+good), size); err != nil || len(out) != 2*len(good)+MaxEvent {
			t.Errorf("chunks of %d: an event of 1 MiB: %d bytes, %v", size, len(out), err)
		}
		if out, _, _, err := split([]byte(good+"x"+fits+good), size); !errors.Is(err, ErrEventTooLong) || out != good {
			t.Errorf("chunks of %d: an event of 1 MiB + 1: %d bytes, %v", size, len(out), err)
		}
		if _, _, _, err := split([]byte(strings.Repeat("x", MaxEvent+1)), size); !errors.Is(err, ErrEventTooLong) {
			t.Errorf("chunks of %d: an endless line: %v", size, err)
		}
	}
}

func FuzzEvents(f *testing.F) {
	f.Add([]byte("data: 1\n\ndata: 2\r\n\r\n: c\n\ndata: [DONE]"), uint8(3))
	f.Add([]byte("\xef\xbb\xbf\r\n\ndata: 1\n\r\n"), uint8(1))
	f.Fuzz(func(t *testing.T, in []byte, size uint8) {
		whole, flush, truncated, err := split(in, len(in)+1)
		out, flush2, truncated2, err2 := split(in, int(size)+1)
		if out != whole || flush != flush2 || truncated != truncated2 || (err == nil) != (err2 == nil) {
			t.Fatalf("chunks of %d: %q %q %v %v; whole: %q %q %v %v", int(size)+1, out, flush2, truncated2, err2, whole, flush, truncated, err)
		}
		if kept := bytes.TrimPrefix(in, []byte(byteOrderMark)); !bytes.HasPrefix(kept, []byte(out)) {
			t.Fatalf("bytes were changed: %q from %q", out, in)
		}
		for rest := []byte(out); len(rest) > 0; {
			var event []byte
			event, rest = CutEvent(rest)
			if n := bytes.Count(event, []byte("\n\n")); n > 1 || !bytes.HasSuffix(event, []byte("\n")) {
				t.Fatalf("%q is not one event", event)
			}
			ParseEvent(event)
		}
	})
}

func TestParseEvent(t *testing.T) {
	for in, want := range map[string]Event{
		"data: {}\n\n":                  {Data: []byte("{}"), HasData: true, Fields: true},
		"data:{}\r\n\r\n":               {Data: []byte("{}"), HasData: true, Fields: true},
		"event: a\ndata:  x\n\n":        {Name: []byte("a"), Data: []byte(" x"), HasData: true, Fields: true},
		"data: 1\ndata: 2\n\n":          {Data: []byte("1\n2"), HasData: true, Fields: true},
		"data\n\n":                      {HasData: true, Fields: true},
		": c\n\n":                       {},
		"\n":                            {},
		"event: ping\n\n":               {Name: []byte("ping"), Fields: true},
		"id: 1\nretry: 2\ndatax: 3\n\n": {Fields: true},
	} {
		got := ParseEvent([]byte(in))
		if string(got.Name) != string(want.Name) || string(got.Data) != string(want.Data) || got.HasData != want.HasData || got.Fields != want.Fields {
			t.Errorf("%q: %+v, want %+v", in, got, want)
		}
	}
}

func BenchmarkEvents(b *testing.B) {
	event := []byte("data: " + strings.Repeat("x", 240) + "\n\n")
	batch := bytes.Repeat(event, 100)
	b.SetBytes(int64(len(batch)))
	b.ReportAllocs()
	var e Events
	for b.Loop() {
		if _, err := e.Feed(batch); err != nil {
			b.Fatal(err)
		}
	}
}
