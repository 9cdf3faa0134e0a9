package control

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/bulkhead-ai/bulkhead"
)

// The headers of a request between gateway and worker. The gateway strips every
// x-bulkhead-* header that a client sent but the two tags, so a worker may
// believe HeaderRequest.
const (
	HeaderRequest = "X-Bulkhead-Request"
	HeaderFeature = "X-Bulkhead-Feature"
	HeaderUser    = "X-Bulkhead-User"
)

// Head is what the gateway found out about a request.
type Head struct {
	Request bulkhead.RequestID
	Key     bulkhead.KeyID
	Rev     uint64 // the worker must have applied at least this policy before it decides
}

// Set writes the head into h.
func (d Head) Set(h http.Header) { h[HeaderRequest] = []string{d.Value()} }

// Value is the value of HeaderRequest, for those who write heads themselves.
func (d Head) Value() string {
	return string(d.Request) + " " + string(d.Key) + " " + strconv.FormatUint(d.Rev, 10)
}

// ParseHead reads what Set wrote.
func ParseHead(h http.Header) (Head, error) {
	req, rest, ok1 := strings.Cut(h.Get(HeaderRequest), " ")
	key, revText, ok2 := strings.Cut(rest, " ")
	rev, err := strconv.ParseUint(revText, 10, 64)
	if !ok1 || !ok2 || err != nil || req == "" || key == "" {
		return Head{}, fmt.Errorf("header %s: malformed", HeaderRequest)
	}
	return Head{bulkhead.RequestID(req), bulkhead.KeyID(key), rev}, nil
}
