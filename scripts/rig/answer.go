package main

import (
	"bytes"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"
)

func plainAnswer(out []byte, status int, body []byte) []byte {
	out = fmt.Appendf(out, "HTTP/1.1 %d X\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n", status, len(body))
	return append(out, body...)
}

func (d directive) usage() string {
	return fmt.Sprintf(`"usage":{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d}`, d.in, d.out, d.in+d.out)
}

func completion(out []byte, d directive) []byte {
	body := append(make([]byte, 0, d.answer+400), `{"id":"chatcmpl-mock","object":"chat.completion","created":1,"model":"mock","choices":[{"index":0,"message":{"role":"assistant","content":"`...)
	body = append(body, bytes.Repeat([]byte("x"), d.answer)...)
	body = append(body, `"},"finish_reason":"stop"}]`...)
	if !d.noUsage {
		body = append(append(body, ','), d.usage()...)
	}
	return plainAnswer(out, 200, append(body, '}'))
}

const eventHead = `data: {"id":"chatcmpl-mock","object":"chat.completion.chunk","created":1,"model":"mock","choices":[`

// streamAnswer writes a chunked event stream, one write an event, as providers
// flush: a gateway must not be spared the wake-ups.
func streamAnswer(c net.Conn, out []byte, d directive) ([]byte, error) {
	if _, err := c.Write([]byte(streamHead)); err != nil {
		return out, err
	}
	text := strings.Repeat("y", d.size)
	first := chunk(nil, eventHead+`{"index":0,"delta":{"role":"assistant","content":"`+text+`"},"finish_reason":null}]}`)
	other := chunk(nil, eventHead+`{"index":0,"delta":{"content":"`+text+`"},"finish_reason":null}]}`)
	for i := range d.chunks {
		event := other
		if i == 0 {
			event = first
		}
		if _, err := c.Write(event); err != nil {
			return out, err
		}
		if d.delay > 0 {
			time.Sleep(d.delay)
		}
	}
	last := []string{eventHead + `{"index":0,"delta":{},"finish_reason":"stop"}]}`, eventHead + `],` + d.usage() + `}`, "data: [DONE]"}
	for i, event := range last {
		if i == 1 && d.noUsage {
			continue
		}
		if _, err := c.Write(chunk(out[:0], event)); err != nil {
			return out, err
		}
	}
	_, err := c.Write([]byte("0\r\n\r\n"))
	return out, err
}

const streamHead = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"

func chunk(out []byte, event string) []byte {
	out = strconv.AppendInt(out, int64(len(event)+2), 16)
	out = append(append(append(out, "\r\n"...), event...), "\n\n\r\n"...)
	return out
}
