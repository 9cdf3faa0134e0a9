package transport

import (
	"errors"
	"fmt"
	"time"

	"github.com/bulkhead-ai/bulkhead"
)

const maxDetail = 1024 // bytes of an error's detail that travel

// callError is a *bulkhead.Error between nodes. Kinds go by name: their numbers
// are a build's own affair.
type callError struct {
	Kind         string `json:"kind"`
	Code         string `json:"code"`
	Message      string `json:"message"`
	Param        string `json:"param,omitempty"`
	RetryAfterMS int64  `json:"retry_after_ms,omitempty"`
	Detail       string `json:"detail,omitempty"`    // for the operator's log
	NoAnswer     bool   `json:"no_answer,omitempty"` // the handler itself had ErrNoAnswer
}

func kindName(k bulkhead.Kind) string {
	switch k {
	case bulkhead.InvalidRequest:
		return "invalid_request"
	case bulkhead.Unauthenticated:
		return "unauthenticated"
	case bulkhead.PermissionDenied:
		return "permission_denied"
	case bulkhead.NotFound:
		return "not_found"
	case bulkhead.RequestTimeout:
		return "request_timeout"
	case bulkhead.Conflict:
		return "conflict"
	case bulkhead.TooLarge:
		return "too_large"
	case bulkhead.UnsupportedMedia:
		return "unsupported_media"
	case bulkhead.HeadTooLarge:
		return "head_too_large"
	case bulkhead.RateLimited:
		return "rate_limited"
	case bulkhead.QuotaExhausted:
		return "quota_exhausted"
	case bulkhead.Upstream:
		return "upstream"
	case bulkhead.Unavailable:
		return "unavailable"
	case bulkhead.UpstreamTimeout:
		return "upstream_timeout"
	case bulkhead.MethodNotAllowed:
		return "method_not_allowed"
	}
	return "internal"
}

// kindNamed answers Internal for a name that this build does not know.
func kindNamed(name string) bulkhead.Kind {
	for k := range bulkhead.Kind(64) {
		if kindName(k) == name {
			return k
		}
	}
	return bulkhead.Internal
}

func encodeError(err error) *callError {
	e := bulkhead.AsError(err)
	out := &callError{
		Kind: kindName(e.Kind), Code: e.Code, Message: e.Message, Param: e.Param,
		RetryAfterMS: int64((e.RetryAfter + time.Millisecond - 1) / time.Millisecond),
		NoAnswer:     errors.Is(err, ErrNoAnswer),
	}
	if e.Err != nil {
		detail := e.Err.Error()
		out.Detail = detail[:min(len(detail), maxDetail)]
	}
	return out
}

func (c *callError) decode(node string) error {
	e := bulkhead.E(kindNamed(c.Kind), c.Code, c.Message)
	e.Param, e.RetryAfter = c.Param, time.Duration(c.RetryAfterMS)*time.Millisecond
	switch {
	case c.NoAnswer:
		e.Err = fmt.Errorf("%w: node %s: %s", ErrNoAnswer, node, c.Detail)
	case c.Detail != "":
		e.Err = fmt.Errorf("node %s: %s", node, c.Detail)
	}
	return e
}
