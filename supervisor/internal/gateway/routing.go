package gateway

import (
	"net/http"
	"strings"

	"github.com/bulkhead-ai/bulkhead"
)

// maxID bounds a resource id in a path.
const maxID = 128

// endpoint is one path of the API and how its clients read errors.
type endpoint struct {
	path    string // below /v1; one that ends in "/" takes an id
	methods string // comma separated, as in Allow
	style   style
	alias   string // prefix under which it exists besides the plain one; "" = both
}

// style says how a client of an endpoint reads an error inside a stream.
type style uint8

const (
	chatStyle      style = iota // data: {"error":...}
	responsesStyle              // event: error, flat
	messagesStyle               // event: error, Anthropic's shape
)

// endpoints are all paths that exist; anything else is 404.
var endpoints = [...]endpoint{
	{path: "chat/completions", methods: "POST", alias: openAIPrefix},
	{path: "completions", methods: "POST", alias: openAIPrefix},
	{path: "embeddings", methods: "POST", alias: openAIPrefix},
	{path: "responses", methods: "POST", style: responsesStyle, alias: openAIPrefix},
	{path: "models", methods: "GET"},
	{path: "models/", methods: "GET"},
	{path: "messages", methods: "POST", style: messagesStyle, alias: anthropicPrefix},
}

const (
	openAIPrefix    = "/openai"
	anthropicPrefix = "/anthropic"
)

// checkPath refuses what two path parsers could take apart differently, before
// anything else looks at the path. It returns the path to route: raw is
// RequestURI's path as the client sent it. The one escape allowed is %3A, which
// SDKs send for the colon of fine-tuned models.
func checkPath(raw string) (string, *bulkhead.Error) {
	if i := strings.IndexByte(raw, '%'); i >= 0 {
		raw = strings.ReplaceAll(strings.ReplaceAll(raw, "%3A", ":"), "%3a", ":")
	}
	if len(raw) < 1 || raw[0] != '/' || !allIn(raw, classID) {
		return "", errInvalidID
	}
	for rest := raw[1:]; rest != ""; {
		var segment string
		segment, rest, _ = strings.Cut(rest, "/")
		if segment == "" || segment == "." || segment == ".." {
			return "", errInvalidID
		}
	}
	return raw, nil
}

// route finds the endpoint of a checked path and the path the worker is asked
// for, which is the same for every alias.
func route(path string) (*endpoint, string) {
	prefix := ""
	for _, p := range [...]string{openAIPrefix, anthropicPrefix} {
		if strings.HasPrefix(path, p+"/") {
			prefix, path = p, path[len(p):]
		}
	}
	name, versioned := strings.CutPrefix(path[1:], "v1/")
	for i := range endpoints {
		e := &endpoints[i]
		if !e.matches(name) || prefix != "" && e.alias != "" && e.alias != prefix {
			continue
		}
		if versioned && prefix == "" {
			return e, path
		}
		return e, "/v1/" + name
	}
	return nil, ""
}

func (e *endpoint) matches(name string) bool {
	if strings.HasSuffix(e.path, "/") {
		id, ok := strings.CutPrefix(name, e.path)
		return ok && id != "" && len(id) <= maxID
	}
	return name == e.path
}

// allows reports whether the endpoint takes a method.
func (e *endpoint) allows(method string) bool { return method == e.methods }

// shapeOf is the error shape that a client expects, known before its path is.
func shapeOf(r *http.Request) bulkhead.Shape {
	if len(r.Header["Anthropic-Version"]) > 0 || strings.HasPrefix(r.URL.Path, anthropicPrefix+"/") ||
		strings.HasSuffix(r.URL.Path, "/messages") {
		return bulkhead.Anthropic
	}
	return bulkhead.OpenAI
}
