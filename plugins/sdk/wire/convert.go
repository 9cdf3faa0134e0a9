package wire

import (
	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/plugins/provider"
)

// FromInfo converts an adapter's description.
func FromInfo(i provider.Info) *Info {
	w := &Info{Name: i.Name, Version: i.Version, AuthHeader: i.AuthHeader, AuthPrefix: i.AuthPrefix, Local: i.Local}
	for _, e := range i.Endpoints {
		w.Endpoints = append(w.Endpoints, string(e))
	}
	return w
}

// Provider is the reverse of FromInfo.
func (w *Info) Provider() provider.Info {
	i := provider.Info{Name: w.GetName(), Version: w.GetVersion(), AuthHeader: w.GetAuthHeader(), AuthPrefix: w.GetAuthPrefix(), Local: w.GetLocal()}
	for _, e := range w.GetEndpoints() {
		i.Endpoints = append(i.Endpoints, provider.Endpoint(e))
	}
	return i
}

// FromCall converts a call; the body is shared.
func FromCall(c *provider.Call) *Call {
	return &Call{
		Endpoint: string(c.Endpoint), Model: c.Model, Body: c.Body, Stream: c.Stream,
		ShowUsage: c.ShowUsage, MaxOutput: c.MaxOutput, Options: c.Options,
	}
}

// Provider is the reverse of FromCall.
func (w *Call) Provider() *provider.Call {
	return &provider.Call{
		Endpoint: provider.Endpoint(w.GetEndpoint()), Model: w.GetModel(), Body: w.GetBody(), Stream: w.GetStream(),
		ShowUsage: w.GetShowUsage(), MaxOutput: w.GetMaxOutput(), Options: w.GetOptions(),
	}
}

// FromRequest converts a translated request; the body is shared.
func FromRequest(r *provider.Request) *RequestReply {
	return &RequestReply{Path: r.Path, Header: r.Header, Body: r.Body, InputBound: r.InputBound}
}

// Provider is the reverse of FromRequest.
func (w *RequestReply) Provider() *provider.Request {
	return &provider.Request{Path: w.GetPath(), Header: w.GetHeader(), Body: w.GetBody(), InputBound: w.GetInputBound()}
}

// FromAnswer converts a translated answer; the body is shared.
func FromAnswer(a *provider.Answer) *AnswerReply {
	return &AnswerReply{
		Body: a.Body, Replace: a.Body != nil, Usage: FromUsage(a.Usage), Suspect: a.Suspect, Failure: FromFailure(a.Err),
	}
}

// Provider is the reverse of FromAnswer.
func (w *AnswerReply) Provider() *provider.Answer {
	a := &provider.Answer{Usage: w.GetUsage().Provider(), Suspect: w.GetSuspect(), Err: w.GetFailure().Provider()}
	if w.GetReplace() {
		a.Body = append([]byte{}, w.GetBody()...)
	}
	return a
}

// FromDelta converts a translated batch; its bytes are shared.
func FromDelta(d *provider.Delta) *Delta {
	return &Delta{
		Data: d.Data, Terminal: d.Terminal, Usage: FromUsage(d.Usage), Suspect: d.Suspect,
		Output: d.Output, Done: d.Done, Failure: FromFailure(d.Err),
	}
}

// Provider is the reverse of FromDelta.
func (w *Delta) Provider() provider.Delta {
	return provider.Delta{
		Data: w.GetData(), Terminal: w.GetTerminal(), Usage: w.GetUsage().Provider(), Suspect: w.GetSuspect(),
		Output: w.GetOutput(), Done: w.GetDone(), Err: w.GetFailure().Provider(),
	}
}

// FromUsage converts a usage report; nil stays nil.
func FromUsage(u *bulkhead.Usage) *Usage {
	if u == nil {
		return nil
	}
	return &Usage{Input: u.Input, CacheRead: u.CacheRead, CacheWrite: u.CacheWrite, Output: u.Output, Reasoning: u.Reasoning}
}

// Provider is the reverse of FromUsage.
func (w *Usage) Provider() *bulkhead.Usage {
	if w == nil {
		return nil
	}
	return &bulkhead.Usage{Input: w.Input, CacheRead: w.CacheRead, CacheWrite: w.CacheWrite, Output: w.Output, Reasoning: w.Reasoning}
}

// FromFailure converts a provider's failure; nil stays nil.
func FromFailure(f *provider.Failure) *Failure {
	if f == nil {
		return nil
	}
	return &Failure{
		Kind: uint32(f.Kind), Code: f.Code, Message: f.Message,
		Retryable: f.Retryable, NotCharged: f.NotCharged, RetryAfterMs: f.RetryAfter,
	}
}

// Provider is the reverse of FromFailure. A kind that does not fit becomes one
// that does not exist.
func (w *Failure) Provider() *provider.Failure {
	if w == nil {
		return nil
	}
	return &provider.Failure{
		Kind: bulkhead.Kind(min(w.Kind, 255)), Code: w.Code, Message: w.Message,
		Retryable: w.Retryable, NotCharged: w.NotCharged, RetryAfter: w.RetryAfterMs,
	}
}

// FromError converts an error that a client may be shown; its detail stays here.
func FromError(e *bulkhead.Error) *Error {
	return &Error{Kind: uint32(e.Kind), Code: e.Code, Message: e.Message, Param: e.Param}
}

// Provider is the reverse of FromError; nil stays nil.
func (w *Error) Provider() *bulkhead.Error {
	if w == nil {
		return nil
	}
	return &bulkhead.Error{Kind: bulkhead.Kind(min(w.Kind, 255)), Code: w.Code, Message: w.Message, Param: w.Param}
}
