// Package provider is the contract of a provider adapter.
//
// An adapter translates, and only translates: a client's request into the
// provider's, the provider's answer, events and usage back. The worker owns the
// connection, the credential and the clock, so an adapter needs neither network
// nor secrets, and the same code runs linked into the worker or as a plugin
// process in a sandbox of its own.
//
// The worker guarantees to an adapter: the body passed its strict scanner (one
// valid JSON object, no duplicate keys), and one Stream is used by one goroutine
// at a time. It does not trust an adapter: usage is checked, sizes are bounded,
// calls have deadlines.
package provider

import (
	"context"

	"github.com/bulkhead-ai/bulkhead"
)

// Endpoint is a route of the client's API without its version prefix.
type Endpoint string

// The endpoints that adapters may serve.
const (
	ChatCompletions Endpoint = "chat/completions"
	Completions     Endpoint = "completions"
	Embeddings      Endpoint = "embeddings"
	Responses       Endpoint = "responses"
	Messages        Endpoint = "messages" // Anthropic
)

// Info describes an adapter.
type Info struct {
	Name       string
	Version    string
	Endpoints  []Endpoint
	AuthHeader string // header that carries the credential, e.g. "Authorization"; "" = none
	AuthPrefix string // put before the credential, e.g. "Bearer "
	Local      bool   // the adapter answers itself (echo): the worker calls Answerer instead of dialling
}

// Call is one attempt as an adapter sees it.
type Call struct {
	Endpoint  Endpoint
	Model     string            // the provider's model name
	Body      []byte            // the client's body; not to be modified or kept
	Stream    bool              // the client asked for a stream
	ShowUsage bool              // the client asked for usage in the stream
	MaxOutput int64             // > 0: clamp the request's ceiling of output tokens (of one choice) to this
	Options   map[string]string // the provider's options of the desired state
}

// Request is what to send to the provider.
type Request struct {
	Path       string            // below the provider's base URL, e.g. "/chat/completions"
	Header     map[string]string // provider-specific; never a credential
	Body       []byte
	InputBound int64 // no more prompt tokens than this can be charged; 0 = unknown, the worker then bounds by bytes
}

// Answer is a complete answer, translated.
type Answer struct {
	Body    []byte          // what the client gets; nil = the provider's body unchanged
	Usage   *bulkhead.Usage // nil = the provider said nothing, or nothing believable
	Suspect bool            // the provider's usage report was not believable (negative, fractional, inconsistent)
	Err     *Failure        // set when the provider answered with an error
}

// Failure is an error of the provider in the gateway's words.
type Failure struct {
	Kind       bulkhead.Kind // what the client may be told
	Code       string
	Message    string // shown to the client: must not carry a secret or an address
	Retryable  bool   // another target, or the same later, may work
	NotCharged bool   // the provider certainly did not charge
	RetryAfter int64  // milliseconds, 0 = unknown
}

// Delta is what one or more events of a stream became. Data and Terminal are
// this call's events only; the other fields say what is known so far.
type Delta struct {
	Data     []byte          // whole events for the client
	Terminal []byte          // events that finish the answer (finish_reason, usage, [DONE]): held back until the books are closed
	Usage    *bulkhead.Usage // the last believable usage report; nil = none yet
	Suspect  bool            // a usage report was not believable
	Output   int64           // upper estimate of output tokens delivered, never above the request's ceiling unless the provider passed it
	Done     bool            // the provider finished the stream properly
	Err      *Failure        // the provider reported an error inside the stream; Data and Terminal before it still hold
}

// Adapter translates for one kind of provider. Methods may be called
// concurrently.
type Adapter interface {
	// Info is constant.
	Info() Info
	// Request translates a call. An error of type *bulkhead.Error is shown to
	// the client; any other is an adapter failure (502).
	Request(ctx context.Context, c *Call) (*Request, error)
	// Answer translates a complete answer, whatever its status.
	Answer(ctx context.Context, c *Call, status int, body []byte) (*Answer, error)
	// Stream starts the translation of an event stream that the provider
	// answered with status 200.
	Stream(ctx context.Context, c *Call) (Stream, error)
}

// Stream translates the events of one answer, in order.
type Stream interface {
	// Translate takes one or more complete server-sent events, each ending with
	// its blank line (see Events). The Delta's slices may share memory with
	// events and are valid until the next call. An error means that the stream
	// cannot be understood any more; it is not called again after one.
	Translate(events []byte) (Delta, error)
	// Close releases the stream; it is called exactly once.
	Close()
}

// Answerer is implemented by adapters with Info.Local: they produce the
// provider's answer themselves. Emit gets the provider's body (plain answers)
// or its events one by one; it fails when the client is gone.
type Answerer interface {
	Respond(ctx context.Context, c *Call, r *Request, emit func(status int, data []byte) error) error
}
