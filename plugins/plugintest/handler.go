package plugintest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/plugins/provider"
)

// Gateway is the smallest thing that serves clients through an adapter: no keys,
// no limits, no books. Tests point SDKs at it.
type Gateway struct {
	Adapter  provider.Adapter
	Upstream string            // base URL; unused by adapters that answer themselves
	Options  map[string]string // the provider's options
}

// ServeHTTP implements http.Handler for paths /v1/ENDPOINT.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the client is gone
	}
	model, _ := provider.String(provider.Find(body, "model"))
	c := &provider.Call{
		Endpoint: provider.Endpoint(strings.TrimPrefix(r.URL.Path, "/v1/")), Model: model, Body: body, Options: g.Options,
		Stream:    string(provider.Find(body, "stream")) == "true",
		ShowUsage: string(provider.Find(provider.Find(body, "stream_options"), "include_usage")) == "true",
	}
	if err := g.serve(r.Context(), w, c); err != nil {
		e := bulkhead.AsError(err)
		e.SetHeader(w.Header())
		w.WriteHeader(e.Status())
		w.Write(e.Body(bulkhead.OpenAI, ""))
	}
}

func (g *Gateway) serve(ctx context.Context, w http.ResponseWriter, c *provider.Call) error {
	req, err := g.Adapter.Request(ctx, c)
	if err != nil {
		return err
	}
	t := &translation{g: g, c: c, w: w}
	defer t.close()
	if g.Adapter.Info().Local {
		err = g.Adapter.(provider.Answerer).Respond(ctx, c, req, func(status int, data []byte) error { return t.take(ctx, status, data) })
	} else {
		err = g.forward(ctx, req, t)
	}
	if err != nil && t.stream != nil {
		panic(http.ErrAbortHandler) // mid-stream: the client must see a cut
	}
	return err
}

func (g *Gateway) forward(ctx context.Context, req *provider.Request, t *translation) error {
	h, err := http.NewRequestWithContext(ctx, http.MethodPost, g.Upstream+req.Path, bytes.NewReader(req.Body))
	if err != nil {
		return err
	}
	h.Header.Set("Content-Type", "application/json")
	for k, v := range req.Header {
		h.Header.Set(k, v)
	}
	resp, err := http.DefaultClient.Do(h)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if !t.c.Stream || resp.StatusCode != 200 {
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			return err
		}
		return t.take(ctx, resp.StatusCode, body)
	}
	var events provider.Events
	buf := make([]byte, 4096)
	for {
		n, err := resp.Body.Read(buf)
		batch, tooLong := events.Feed(buf[:n])
		if len(batch) > 0 {
			if err := t.take(ctx, 200, batch); err != nil {
				return err
			}
		}
		if tooLong != nil {
			return tooLong
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// translation is one answer on its way to the client.
type translation struct {
	g      *Gateway
	c      *provider.Call
	w      http.ResponseWriter
	stream provider.Stream
}

func (t *translation) close() {
	if t.stream != nil {
		t.stream.Close()
	}
}

func (t *translation) take(ctx context.Context, status int, data []byte) error {
	if t.c.Stream && status == 200 {
		return t.events(ctx, data)
	}
	a, err := t.g.Adapter.Answer(ctx, t.c, status, data)
	if err != nil {
		return err
	}
	if a.Err != nil {
		return bulkhead.E(a.Err.Kind, a.Err.Code, a.Err.Message)
	}
	if a.Body != nil {
		data = a.Body
	}
	t.w.Header().Set("Content-Type", "application/json")
	_, err = t.w.Write(data)
	return err
}

func (t *translation) events(ctx context.Context, events []byte) (err error) {
	if t.stream == nil {
		if t.stream, err = t.g.Adapter.Stream(ctx, t.c); err != nil {
			return err
		}
		t.w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
	}
	d, err := t.stream.Translate(events)
	if err != nil {
		return err
	}
	t.w.Write(d.Data)
	t.w.Write(d.Terminal)
	if d.Err != nil {
		t.w.Write([]byte("data: " + string(bulkhead.E(d.Err.Kind, d.Err.Code, d.Err.Message).Body(bulkhead.OpenAI, "")) + "\n\n"))
	}
	http.NewResponseController(t.w).Flush()
	return nil
}
