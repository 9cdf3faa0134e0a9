package gateway

import (
	"strconv"
	"strings"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/worker/control"
)

const (
	maxForwardedHead = 16 << 10 // bytes of the head that a worker is sent
	maxTag           = 128
)

// forwarded are the client's headers that a worker gets, in the form of
// http.CanonicalHeaderKey; all others, the credential among them, end here.
var forwarded = [...]string{
	"Content-Type", "Accept", "Anthropic-Version", "Anthropic-Beta", "Openai-Beta", "Idempotency-Key",
	"X-Stainless-Retry-Count", "Traceparent",
}

// appendHead appends the worker's request head without its framing and the empty
// line that ends it.
func (x *exchange) appendHead(b []byte) ([]byte, *bulkhead.Error) {
	b = append(b, x.r.Method...)
	b = append(b, ' ')
	b = append(b, x.path...)
	if q := x.r.URL.RawQuery; q != "" {
		b = append(b, '?')
		b = append(b, q...)
	}
	b = append(b, " HTTP/1.1\r\nHost: worker\r\n"...)
	b = appendField(b, control.HeaderRequest, x.head().Value())
	for _, name := range forwarded {
		for _, v := range x.r.Header[name] {
			if !allIn(v, classTag) {
				return nil, errMalformed
			}
			b = appendField(b, name, v)
		}
	}
	for _, name := range [...]string{control.HeaderFeature, control.HeaderUser} {
		lines := x.r.Header[name]
		if len(lines) == 0 {
			continue
		}
		if len(lines) > 1 || len(lines[0]) > maxTag || !allIn(lines[0], classTag) {
			return nil, errTag
		}
		b = appendField(b, name, lines[0])
	}
	if len(b) > maxForwardedHead {
		return nil, errHeadLarge
	}
	return b, nil
}

// head is what the worker may believe.
func (x *exchange) head() control.Head {
	return control.Head{Request: x.id, Key: x.grant.Key, Rev: x.grant.Rev, Member: x.grant.Member}
}

func appendField(b []byte, name, value string) []byte {
	b = append(b, name...)
	b = append(b, ": "...)
	b = append(b, value...)
	return append(b, "\r\n"...)
}

// appendFraming ends the head. length < 0 means a chunked body.
func appendFraming(b []byte, length int64) []byte {
	if length < 0 {
		return append(b, "Transfer-Encoding: chunked\r\n\r\n"...)
	}
	b = append(b, "Content-Length: "...)
	b = strconv.AppendInt(b, length, 10)
	return append(b, "\r\n\r\n"...)
}

// validQuery reports whether a query may be put into a request line again.
func validQuery(q string) bool {
	return strings.IndexFunc(q, func(c rune) bool { return c >= 0x80 || c != '%' && !is(byte(c), classTarget) }) < 0
}
