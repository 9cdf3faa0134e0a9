package bulkhead

import (
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"time"
)

// Kind classifies an error that a client sees. It decides status, type and
// whether a client's SDK should retry, on both sides of the process boundary.
type Kind uint8

// The kinds. Trouble of the infrastructure is only ever Unavailable, Upstream,
// UpstreamTimeout or Internal: a client must never be told that its key or its
// limit is wrong because a disk or a node is.
const (
	Internal         Kind = iota // 500: a bug
	InvalidRequest               // 400
	Unauthenticated              // 401
	PermissionDenied             // 403
	NotFound                     // 404
	RequestTimeout               // 408: the client was too slow
	Conflict                     // 409
	TooLarge                     // 413
	UnsupportedMedia             // 415
	HeadTooLarge                 // 431
	RateLimited                  // 429: a short window; retry after RetryAfter
	QuotaExhausted               // 429: a long window; do not retry
	Upstream                     // 502: the provider failed
	Unavailable                  // 503: the gateway cannot serve now
	UpstreamTimeout              // 504
	MethodNotAllowed             // 405
)

// Error is an error whose Message may be shown to a client. Texts of upstreams,
// paths and keys never go into Message; they go into Err, which is for the
// operator's log only.
type Error struct {
	Kind       Kind
	Code       string        // machine-readable, snake_case, e.g. "model_not_found"
	Message    string        // for the client
	Param      string        // the request field at fault, or ""
	RetryAfter time.Duration // > 0: sent as Retry-After and retry-after-ms
	Err        error         // detail for the operator; never sent
}

// E builds an Error without detail.
func E(k Kind, code, message string) *Error { return &Error{Kind: k, Code: code, Message: message} }

// With returns a copy of e that carries the operator's detail.
func (e *Error) With(err error) *Error { c := *e; c.Err = err; return &c }

func (e *Error) Error() string {
	if e.Err != nil {
		return e.Code + ": " + e.Err.Error()
	}
	return e.Code + ": " + e.Message
}

func (e *Error) Unwrap() error { return e.Err }

// AsError finds the *Error in err's chain, or wraps err as Internal with a text
// that tells nothing about the inside.
func AsError(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return &Error{Kind: Internal, Code: "internal_error", Message: "The gateway failed to handle the request.", Err: err}
}

// Status is the HTTP status of the kind.
func (e *Error) Status() int {
	switch e.Kind {
	case InvalidRequest:
		return http.StatusBadRequest
	case Unauthenticated:
		return http.StatusUnauthorized
	case PermissionDenied:
		return http.StatusForbidden
	case NotFound:
		return http.StatusNotFound
	case MethodNotAllowed:
		return http.StatusMethodNotAllowed
	case RequestTimeout:
		return http.StatusRequestTimeout
	case Conflict:
		return http.StatusConflict
	case TooLarge:
		return http.StatusRequestEntityTooLarge
	case UnsupportedMedia:
		return http.StatusUnsupportedMediaType
	case HeadTooLarge:
		return http.StatusRequestHeaderFieldsTooLarge
	case RateLimited, QuotaExhausted:
		return http.StatusTooManyRequests
	case Upstream:
		return http.StatusBadGateway
	case Unavailable:
		return http.StatusServiceUnavailable
	case UpstreamTimeout:
		return http.StatusGatewayTimeout
	}
	return http.StatusInternalServerError
}

// Shape is the JSON form of errors that a client's SDK expects.
type Shape uint8

// The shapes.
const (
	OpenAI    Shape = iota // {"error":{"message","type","param","code","request_id"}}
	Anthropic              // {"type":"error","error":{"type","message"},"request_id"}
)

// Body renders the error for a client, without a trailing newline.
func (e *Error) Body(s Shape, id RequestID) []byte {
	if s == Anthropic {
		return mustJSON(anthropicError{
			Type: "error", RequestID: id,
			Error: anthropicDetail{Type: e.anthropicType(), Message: e.Message, Details: &anthropicCode{e.Code}},
		})
	}
	d := openAIDetail{Message: e.Message, Type: e.openAIType(), RequestID: id}
	if e.Param != "" {
		d.Param = &e.Param
	}
	if e.Code != "" {
		d.Code = &e.Code
	}
	return mustJSON(openAIError{d})
}

// SetHeader sets content type, Retry-After, retry-after-ms and x-should-retry
// as the OpenAI and Anthropic SDKs read them. QuotaExhausted gets no
// Retry-After: Node's SDK would sleep until the end of the month.
func (e *Error) SetHeader(h http.Header) {
	h.Set("Content-Type", "application/json")
	switch e.Kind {
	case QuotaExhausted:
		h.Set("X-Should-Retry", "false")
	case RateLimited, Unavailable:
		d := max(e.RetryAfter, time.Millisecond)
		h.Set("Retry-After", strconv.FormatInt(int64((d+time.Second-1)/time.Second), 10))
		h.Set("Retry-After-Ms", strconv.FormatInt(int64((d+time.Millisecond-1)/time.Millisecond), 10))
	}
}

type openAIError struct {
	Error openAIDetail `json:"error"`
}

type openAIDetail struct {
	Message   string    `json:"message"`
	Type      string    `json:"type"`
	Param     *string   `json:"param"`
	Code      *string   `json:"code"`
	RequestID RequestID `json:"request_id,omitempty"`
}

type anthropicError struct {
	Type      string          `json:"type"`
	Error     anthropicDetail `json:"error"`
	RequestID RequestID       `json:"request_id,omitempty"`
}

type anthropicDetail struct {
	Type    string         `json:"type"`
	Message string         `json:"message"`
	Details *anthropicCode `json:"details,omitempty"`
}

type anthropicCode struct {
	ErrorCode string `json:"error_code"`
}

func (e *Error) openAIType() string {
	switch e.Kind {
	case Unauthenticated:
		return "authentication_error"
	case PermissionDenied:
		return "permission_error"
	case RateLimited:
		return "rate_limit_error"
	case QuotaExhausted:
		return "insufficient_quota"
	case Internal, Upstream, Unavailable, UpstreamTimeout:
		return "server_error"
	}
	return "invalid_request_error"
}

func (e *Error) anthropicType() string {
	switch e.Kind {
	case Unauthenticated:
		return "authentication_error"
	case PermissionDenied:
		return "permission_error"
	case NotFound:
		return "not_found_error"
	case Conflict:
		return "conflict_error"
	case TooLarge:
		return "request_too_large"
	case RateLimited, QuotaExhausted:
		return "rate_limit_error"
	case Unavailable:
		return "overloaded_error"
	case Internal, Upstream, UpstreamTimeout:
		return "api_error"
	}
	return "invalid_request_error"
}

func mustJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic("internal error: encode error body: " + err.Error())
	}
	return b
}
