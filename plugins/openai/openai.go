// Package openai is the adapter for providers that speak OpenAI's API: OpenAI
// itself, vLLM, llama.cpp, Ollama and others.
//
// It guarantees: a request reaches the provider byte for byte but for the model
// name, the request for usage in streams and the ceiling of output tokens; an
// answer reaches the client byte for byte, but for the usage chunk that a client
// did not ask for, lines of a stream that carry no data, and `"error":null`
// members, both of which SDKs choke on; usage is read strictly and into disjoint
// classes; no text of the provider's errors reaches a client.
//
// It does not guarantee that a provider honours the ceiling; Delta.Output tells
// when one visibly does not.
//
// Options of the provider:
//
//	ceiling_field  name of the ceiling that is added to chat requests without one:
//	               max_tokens (default) or max_completion_tokens (which OpenAI's
//	               reasoning models need)
//	stream_usage   "off": do not ask for usage in streams (for old servers that
//	               refuse stream_options; such streams are charged by estimate)
//	organization   sent as OpenAI-Organization
//	project        sent as OpenAI-Project
package openai

import (
	"context"
	"fmt"

	"github.com/bulkhead-ai/bulkhead/plugins/provider"
)

// Version is the adapter's version, bumped with its behaviour.
const Version = "1.0.0"

// Adapter translates for OpenAI-compatible providers. It has no state and is
// safe for concurrent use.
type Adapter struct{}

// New returns the adapter.
func New() *Adapter { return &Adapter{} }

// Info implements provider.Adapter.
func (*Adapter) Info() provider.Info {
	return provider.Info{
		Name: "openai", Version: Version,
		Endpoints:  []provider.Endpoint{provider.ChatCompletions, provider.Completions, provider.Embeddings, provider.Responses},
		AuthHeader: "Authorization", AuthPrefix: "Bearer ",
	}
}

// Answer implements provider.Adapter.
func (*Adapter) Answer(_ context.Context, c *provider.Call, status int, body []byte) (*provider.Answer, error) {
	if status < 200 || status > 299 {
		return &provider.Answer{Err: failure(status, body)}, nil
	}
	var usage, fault []byte
	err := provider.EachMember(body, func(key []byte, start, end int) bool {
		switch string(key) {
		case "usage":
			usage = body[start:end]
		case "error":
			fault = body[start:end]
		}
		return true
	})
	if err != nil {
		return &provider.Answer{Err: invalidAnswer()}, nil
	}
	a := &provider.Answer{}
	a.Usage, a.Suspect = parseUsage(c.Endpoint, usage)
	if !provider.IsNull(fault) {
		a.Err = bodyFailure(fault)
	}
	return a, nil
}

// Stream implements provider.Adapter.
func (*Adapter) Stream(_ context.Context, c *provider.Call) (provider.Stream, error) {
	switch c.Endpoint {
	case provider.ChatCompletions, provider.Completions:
		return newChunks(c), nil
	case provider.Responses:
		return newEvents(c), nil
	}
	return nil, fmt.Errorf("endpoint %s has no streams", c.Endpoint)
}
