package host

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/plugins/provider"
)

const (
	maxText    = 512  // bytes of a message for the client
	maxName    = 64   // bytes of a name or code
	maxValue   = 4096 // bytes of a header value or path
	maxHeaders = 32
	maxRetryMs = 3600 * 1000
)

func checkInfo(i *provider.Info) error {
	if !bulkhead.ValidName(i.Name) || !printable(i.Version, maxName) {
		return errors.New("the name or version is not one")
	}
	if len(i.Endpoints) == 0 || len(i.Endpoints) > maxHeaders {
		return errors.New("the adapter serves no endpoint, or too many")
	}
	for _, e := range i.Endpoints {
		switch e {
		case provider.ChatCompletions, provider.Completions, provider.Embeddings, provider.Responses, provider.Messages:
		default:
			return errors.New("the adapter serves an endpoint that does not exist")
		}
	}
	if i.AuthHeader != "" && (!token(i.AuthHeader) || connectionHeader(i.AuthHeader)) || !printable(i.AuthPrefix, maxName) {
		return errors.New("the credential's header is not one")
	}
	return nil
}

// checkRequest keeps a plugin from changing what is not its own: the host, the
// framing and the credential of the request, and paths beside the base URL.
func checkRequest(r *provider.Request, i *provider.Info) error {
	if !strings.HasPrefix(r.Path, "/") || strings.HasPrefix(r.Path, "//") || !printable(r.Path, maxValue) ||
		strings.ContainsAny(r.Path, "\\#?% ") {
		return errors.New("the request's path is not one")
	}
	for part := range strings.SplitSeq(r.Path, "/") {
		if part == ".." || part == "." {
			return errors.New("the request's path leaves the base url")
		}
	}
	if r.InputBound < 0 || r.InputBound > bulkhead.MaxTokens {
		return errors.New("the request's input bound is impossible")
	}
	if len(r.Header) > maxHeaders {
		return errors.New("the request has too many headers")
	}
	for name, value := range r.Header {
		if !token(name) || !printable(value, maxValue) || connectionHeader(name) || credentialHeader(name) ||
			strings.EqualFold(name, i.AuthHeader) {
			return fmt.Errorf("the request's header %s is not allowed", escape(name))
		}
	}
	return nil
}

// checkUsage believes a report only if every class is within bounds.
func checkUsage(u *bulkhead.Usage, suspect bool) (*bulkhead.Usage, bool) {
	if u != nil && !u.Valid() {
		return nil, true
	}
	return u, suspect
}

// checkFailure makes a plugin's failure presentable.
func checkFailure(f *provider.Failure) {
	if f == nil {
		return
	}
	f.Kind = allowedKind(f.Kind)
	f.Code, f.Message = allowedCode(f.Code), allowedText(f.Message)
	f.RetryAfter = min(max(f.RetryAfter, 0), maxRetryMs)
}

func checkError(e *bulkhead.Error) *bulkhead.Error {
	e.Kind, e.Code, e.Message = allowedKind(e.Kind), allowedCode(e.Code), allowedText(e.Message)
	if !printable(e.Param, maxName) {
		e.Param = ""
	}
	return e
}

// allowedKind lets a plugin say that the request is wrong or the provider in
// trouble. Keys, limits and permissions are the gateway's to speak about.
func allowedKind(k bulkhead.Kind) bulkhead.Kind {
	switch k {
	case bulkhead.InvalidRequest, bulkhead.NotFound, bulkhead.TooLarge, bulkhead.UnsupportedMedia,
		bulkhead.Upstream, bulkhead.Unavailable, bulkhead.UpstreamTimeout:
		return k
	}
	return bulkhead.Upstream
}

func allowedCode(s string) string {
	ok := len(s) > 0 && len(s) <= maxName
	for i := 0; ok && i < len(s); i++ {
		c := s[i]
		ok = c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '_'
	}
	if !ok {
		return "plugin_error"
	}
	return s
}

func allowedText(s string) string {
	if s == "" || !printable(s, maxText) {
		return "The provider failed."
	}
	return s
}

// printable reports whether s is at most limit bytes of printable ASCII.
func printable(s string, limit int) bool {
	if len(s) > limit {
		return false
	}
	for i := 0; i < len(s); i++ {
		if s[i] < ' ' || s[i] >= 0x7f {
			return false
		}
	}
	return true
}

// token reports whether s may be a header's name.
func token(s string) bool {
	if s == "" || len(s) > maxName {
		return false
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_') {
			return false
		}
	}
	return true
}

// connectionHeader names the headers that decide where a request goes and where
// it ends.
func connectionHeader(name string) bool {
	switch http.CanonicalHeaderKey(name) {
	case "Host", "Content-Length", "Transfer-Encoding", "Connection", "Keep-Alive", "Upgrade", "Te", "Trailer",
		"Expect", "Content-Encoding", "Proxy-Connection", "Proxy-Authorization", "Proxy-Authenticate":
		return true
	}
	return false
}

func credentialHeader(name string) bool {
	switch http.CanonicalHeaderKey(name) {
	case "Authorization", "X-Api-Key", "Api-Key", "X-Goog-Api-Key", "Cookie", "Forwarded":
		return true
	}
	return strings.HasPrefix(strings.ToLower(name), "x-forwarded-")
}
