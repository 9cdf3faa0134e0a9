package echo

import (
	"context"
	"strconv"
	"time"

	"github.com/bulkhead-ai/bulkhead/plugins/provider"
)

// emitFunc takes the answer's body or the next event.
type emitFunc func(status int, data []byte) error

// Respond implements provider.Answerer.
func (*Adapter) Respond(ctx context.Context, c *provider.Call, _ *provider.Request, emit func(status int, data []byte) error) error {
	q, err := parse(c)
	if err != nil {
		return err
	}
	s := q.switches
	if err := sleep(ctx, s.Latency); err != nil {
		return err
	}
	if s.Fail != 0 {
		return emit(s.Fail, []byte(`{"error":{"message":"failure asked for by a switch","type":"server_error","param":null,"code":"echo_fail"}}`))
	}
	if c.Endpoint == provider.Embeddings {
		return emit(200, embeddings(c, q))
	}
	r := newReply(c, q)
	if c.Stream {
		return r.stream(ctx, c, emit)
	}
	if err := s.broken(ctx, max(s.Cut, s.Hang)); err != nil {
		return err
	}
	switch c.Endpoint {
	case provider.ChatCompletions:
		return emit(200, r.chat())
	case provider.Completions:
		return emit(200, r.completion())
	}
	return emit(200, r.response("completed"))
}

func (r *reply) stream(ctx context.Context, c *provider.Call, emit emitFunc) error {
	shape := r.shape(c)
	for _, event := range shape.head {
		if err := emit(200, event); err != nil {
			return err
		}
	}
	for i, piece := range r.pieces() {
		if i > 0 {
			if err := sleep(ctx, r.q.switches.Delay); err != nil {
				return err
			}
		}
		if err := emit(200, shape.piece(piece)); err != nil {
			return err
		}
		if err := r.q.switches.broken(ctx, i+1); err != nil {
			return err
		}
	}
	for _, event := range shape.tail {
		if err := emit(200, event); err != nil {
			return err
		}
	}
	return nil
}

// shape is how an endpoint streams.
type shape struct {
	head  [][]byte
	piece func(text string) []byte
	tail  [][]byte
}

func (r *reply) shape(c *provider.Call) shape {
	switch c.Endpoint {
	case provider.ChatCompletions:
		return r.chatShape(c.ShowUsage)
	case provider.Completions:
		return r.completionShape(c.ShowUsage)
	}
	return r.responseShape()
}

// broken ends an answer of which n pieces were given, where the switches say so.
func (s *Switches) broken(ctx context.Context, n int) error {
	if s.Hang > 0 && n == s.Hang {
		<-ctx.Done()
		return ctx.Err()
	}
	if s.Cut > 0 && n == s.Cut {
		return ErrCut
	}
	return nil
}

func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

func (r *reply) usage() string {
	return `{"prompt_tokens":` + itoa(r.input) + `,"completion_tokens":` + itoa(r.output) +
		`,"total_tokens":` + itoa(r.input+r.output) + `}`
}

func itoa(n int64) string { return strconv.FormatInt(n, 10) }
