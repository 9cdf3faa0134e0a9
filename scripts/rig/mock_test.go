package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestStreamIsWrittenEventByEvent: a pipe hands over one write a read.
func TestStreamIsWrittenEventByEvent(t *testing.T) {
	t.Parallel()
	ours, theirs := net.Pipe()
	go func() {
		defer theirs.Close()
		streamAnswer(theirs, nil, directive{chunks: 5, size: 8, in: 3, out: 5})
	}()
	buf := make([]byte, 64<<10)
	for i := 0; ; i++ {
		n, err := ours.Read(buf)
		if err == io.EOF {
			// head, five pieces, finish, usage, [DONE], end of the chunks
			if i != 10 {
				t.Errorf("%d writes, want 10", i)
			}
			return
		}
		if c := bytes.Count(buf[:n], []byte("data: ")); c > 1 {
			t.Errorf("write %d has %d events", i, c)
		}
	}
}

// TestMockReadsLargeBodies: the middle of a body is dropped, not what steers.
func TestMockReadsLargeBodies(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	m := &mock{labels: map[string]map[string]int{}}
	go func() {
		if c, err := l.Accept(); err == nil {
			m.serve(c)
		}
	}()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(time.Minute))
	r := bufio.NewReader(c)
	for _, size := range []int{10, keptHead, keptHead + keptTail, keptHead + keptTail + 1, 100_000, 3 << 20} {
		for _, stream := range []bool{false, true} {
			body := fmt.Sprintf(`{"messages":[{"content":"[[mock k=big o=7]]%s"}],"stream":%t}`, strings.Repeat("z", size), stream)
			go fmt.Fprintf(c, "POST /v1/chat/completions HTTP/1.1\r\nX-Client-Request-Id: %d\r\nContent-Length: %d\r\n\r\n%s", size, len(body), body)
			resp, err := http.ReadResponse(r, nil)
			if err != nil {
				t.Fatalf("%d bytes: %v", size, err)
			}
			b, err := io.ReadAll(resp.Body)
			if err != nil || !bytes.Contains(b, []byte(`"completion_tokens":7`)) || stream != bytes.Contains(b, []byte("[DONE]")) {
				t.Errorf("%d bytes, stream %t: %v %.200s", size, stream, err, b)
			}
		}
	}
	fmt.Fprint(c, "GET /_stats HTTP/1.1\r\n\r\n")
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	var stats map[string]map[string]int
	if err := json.NewDecoder(resp.Body).Decode(&stats); err != nil || stats["big"]["complete"] != 12 {
		t.Errorf("%v %v", stats, err)
	}
}
