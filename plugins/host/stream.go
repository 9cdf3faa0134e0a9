package host

import (
	"bytes"
	"context"
	"errors"

	"google.golang.org/grpc"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/plugins/provider"
	"github.com/bulkhead-ai/bulkhead/plugins/sdk/wire"
)

// maxGrowth bounds how much longer than its events a translation may be, in
// bytes beyond the factor of growthFactor.
const (
	maxGrowth    = 1 << 20
	growthFactor = 8
)

// Stream implements provider.Adapter.
func (a *Adapter) Stream(ctx context.Context, c *provider.Call) (provider.Stream, error) {
	p, err := a.process(ctx)
	if err != nil {
		return nil, err
	}
	inner, cancel := context.WithCancel(ctx)
	defer a.watch(p).Stop()
	g, err := p.rpc.Stream(inner)
	if err == nil {
		err = g.Send(&wire.StreamPart{Call: wire.FromCall(c)})
	}
	if err != nil {
		cancel()
		return nil, a.failed(ctx, p, err)
	}
	return &stream{adapter: a, proc: p, rpc: g, done: ctx.Done, cause: ctx.Err, cancel: cancel}, nil
}

// stream is a stream of the plugin. The call's context is kept as its two
// methods only, to tell whose fault an end is.
type stream struct {
	adapter *Adapter
	proc    *process
	rpc     grpc.BidiStreamingClient[wire.StreamPart, wire.Delta]
	done    func() <-chan struct{}
	cause   func() error
	cancel  context.CancelFunc

	usage   *bulkhead.Usage
	suspect bool
	output  int64
}

// Close implements provider.Stream.
func (s *stream) Close() { s.cancel() }

// Translate implements provider.Stream.
func (s *stream) Translate(events []byte) (provider.Delta, error) {
	watch := s.adapter.watch(s.proc)
	defer watch.Stop()
	// A failed Send says only that the stream is over; Recv says why.
	_ = s.rpc.Send(&wire.StreamPart{Events: events})
	reply, err := s.rpc.Recv()
	if err != nil {
		return provider.Delta{}, s.failed(err)
	}
	d := reply.Provider()
	if err := s.check(&d, len(events)); err != nil {
		return provider.Delta{}, s.adapter.fail("plugin_error", err)
	}
	return d, nil
}

func (s *stream) failed(err error) error {
	if cause := s.cause(); cause != nil {
		return cause
	}
	return s.adapter.failed(context.Background(), s.proc, err)
}

func (s *stream) check(d *provider.Delta, in int) error {
	if len(d.Data)+len(d.Terminal) > in*growthFactor+maxGrowth {
		return errors.New("the plugin makes much more of the events than there is")
	}
	if !wholeEvents(d.Data) || !wholeEvents(d.Terminal) {
		return errors.New("the plugin sends incomplete events")
	}
	if d.Output < 0 || d.Output > bulkhead.MaxTokens {
		return errors.New("the plugin counts an impossible number of tokens")
	}
	s.output = max(s.output, d.Output) // what was delivered stays delivered
	d.Output = s.output
	u, suspect := checkUsage(d.Usage, d.Suspect)
	if u != nil || suspect {
		s.usage, s.suspect = u, suspect
	}
	d.Usage, d.Suspect = s.usage, s.suspect
	checkFailure(d.Err)
	return nil
}

// wholeEvents reports whether b is empty or ends with a blank line.
func wholeEvents(b []byte) bool {
	if len(b) == 0 || len(b) == 1 && b[0] == '\n' || string(b) == "\r\n" {
		return true
	}
	return bytes.HasSuffix(b, []byte("\n\n")) || bytes.HasSuffix(b, []byte("\n\r\n"))
}
