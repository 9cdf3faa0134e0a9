package host

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/bulkhead-ai/bulkhead/plugins/provider"
	"github.com/bulkhead-ai/bulkhead/plugins/sdk/wire"
)

// Request implements provider.Adapter.
func (a *Adapter) Request(ctx context.Context, c *provider.Call) (*provider.Request, error) {
	p, err := a.process(ctx)
	if err != nil {
		return nil, err
	}
	defer a.watch(p).Stop()
	reply, err := p.rpc.Request(ctx, wire.FromCall(c))
	if err != nil {
		return nil, a.failed(ctx, p, err)
	}
	if e := reply.GetError(); e != nil {
		return nil, checkError(e.Provider())
	}
	r := reply.Provider()
	if err := checkRequest(r, &a.info); err != nil {
		return nil, a.fail("plugin_error", err)
	}
	return r, nil
}

// Answer implements provider.Adapter.
func (a *Adapter) Answer(ctx context.Context, c *provider.Call, code int, body []byte) (*provider.Answer, error) {
	p, err := a.process(ctx)
	if err != nil {
		return nil, err
	}
	defer a.watch(p).Stop()
	reply, err := p.rpc.Answer(ctx, &wire.AnswerRequest{Call: wire.FromCall(c), Status: int32(code), Body: body})
	if err != nil {
		return nil, a.failed(ctx, p, err)
	}
	ans := reply.Provider()
	ans.Usage, ans.Suspect = checkUsage(ans.Usage, ans.Suspect)
	checkFailure(ans.Err)
	if ans.Err == nil && (code < 200 || code > 299) {
		return nil, a.fail("plugin_error", errors.New("the plugin takes an error for an answer"))
	}
	return ans, nil
}

// Respond implements provider.Answerer. It has no deadline but the context's:
// answering takes as long as it takes.
func (a *Adapter) Respond(ctx context.Context, c *provider.Call, r *provider.Request, emit func(status int, data []byte) error) error {
	p, err := a.process(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	g, err := p.rpc.Respond(ctx, &wire.RespondRequest{Call: wire.FromCall(c), Request: wire.FromRequest(r)})
	if err != nil {
		return a.failed(ctx, p, err)
	}
	for {
		chunk, err := g.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return a.failed(ctx, p, err)
		}
		if e := chunk.GetError(); e != nil {
			return checkError(e.Provider())
		}
		if s := chunk.GetStatus(); s < 200 || s > 599 {
			return a.fail("plugin_error", errors.New("the plugin answers with a status that does not exist"))
		}
		if err := emit(int(chunk.GetStatus()), chunk.GetData()); err != nil {
			return err
		}
	}
}

// failed maps the end of a call. A process that cannot be reached is retired, so
// that the next call starts another.
func (a *Adapter) failed(ctx context.Context, p *process, err error) error {
	if status.Code(err) == codes.Unavailable {
		p.retire()
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return a.fail("plugin_error", errors.New(escape(err.Error())))
}
