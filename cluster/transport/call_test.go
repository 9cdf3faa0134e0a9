package transport

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bulkhead-ai/bulkhead"
)

func TestErrorsCrossTheWire(t *testing.T) {
	w := newWorld(t, nil)
	a, b := w.node("a"), w.node("b")
	give := func(_ context.Context, _ string, in json.RawMessage) (any, error) {
		switch strings.Trim(string(in), `"`) {
		case "own":
			return nil, fmt.Errorf("wrapped: %w", &bulkhead.Error{
				Kind: bulkhead.RateLimited, Code: "slow_down", Message: "Slow down.", Param: "rate",
				RetryAfter: 1500 * time.Millisecond, Err: errors.New("secret detail"),
			})
		case "unknown outcome":
			return nil, noAnswer("c", errors.New("gone"))
		case "huge":
			return strings.Repeat("x", maxMessage), nil
		}
		return nil, errors.New("plain")
	}
	a.HandleCall("give", give)
	b.HandleCall("give", give)
	for _, node := range []string{"b", "a"} { // a: its own handler
		call := func(in string) (*bulkhead.Error, error) {
			err := a.Call(t.Context(), node, "give", in, nil)
			return bulkhead.AsError(err), err
		}
		e, _ := call("own")
		if e.Kind != bulkhead.RateLimited || e.Code != "slow_down" || e.Message != "Slow down." || e.Param != "rate" ||
			e.RetryAfter != 1500*time.Millisecond || !strings.Contains(e.Err.Error(), "secret detail") {
			t.Errorf("%s: own: %+v", node, e)
		}
		if e, err := call("plain"); e.Kind != bulkhead.Internal || !strings.Contains(err.Error(), "plain") {
			t.Errorf("%s: plain: %+v", node, e)
		}
		if e, err := call("unknown outcome"); !errors.Is(err, ErrNoAnswer) || e.Kind != bulkhead.Unavailable {
			t.Errorf("%s: unknown outcome: %v", node, err)
		}
		if e, _ := call("huge"); e.Code != "message_too_large" {
			t.Errorf("%s: huge: %v", node, e)
		}
		if err := a.Call(t.Context(), node, "nonesuch", nil, nil); bulkhead.AsError(err).Code != "method_unknown" || errors.Is(err, ErrNoAnswer) {
			t.Errorf("%s: no such method: %v", node, err)
		}
	}
	err := a.Call(t.Context(), "b", "echo", strings.Repeat("x", maxMessage), nil)
	if bulkhead.AsError(err).Code != "message_too_large" {
		t.Errorf("huge input: %v", err)
	}
	var out string
	big := strings.Repeat("x", maxMessage-2)
	if err := a.Call(t.Context(), "b", "echo", big, &out); err != nil || out != big {
		t.Errorf("largest input: %d bytes, %v", len(out), err)
	}
}

func TestEveryKindCrossesByName(t *testing.T) {
	for k := bulkhead.Internal; k <= bulkhead.MethodNotAllowed; k++ {
		if name := kindName(k); kindNamed(name) != k {
			t.Errorf("kind %d becomes %q becomes %d", k, name, kindNamed(name))
		}
	}
	if kindNamed("of a newer build") != bulkhead.Internal {
		t.Error("an unknown kind must be Internal")
	}
}

func TestDeadlineAndCancellationReachTheHandler(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, newMemNet())
		a, b := w.node("a"), w.node("b")
		left, ended := make(chan time.Duration, 1), make(chan struct{})
		b.HandleCall("wait", func(ctx context.Context, _ string, _ json.RawMessage) (any, error) {
			d, ok := ctx.Deadline()
			if ok {
				left <- time.Until(d)
			}
			<-ctx.Done()
			ended <- struct{}{}
			return nil, ctx.Err()
		})
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		err := a.Call(ctx, "b", "wait", nil, nil)
		cancel()
		<-ended
		if !errors.Is(err, ErrNoAnswer) && bulkhead.AsError(err).Kind != bulkhead.Internal {
			t.Errorf("deadline: %v", err)
		}
		if d := <-left; d != 30*time.Second {
			t.Errorf("the handler had %v", d)
		}
		ctx, cancel = context.WithCancel(t.Context())
		result := make(chan error, 1)
		go func() { result <- a.Call(ctx, "b", "wait", nil, nil) }()
		synctest.Wait()
		cancel()
		if err := <-result; !errors.Is(err, ErrNoAnswer) || !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled: %v", err)
		}
		<-ended
	})
}

func TestCallEndsWithTheConnection(t *testing.T) {
	w := newWorld(t, nil)
	a, b := w.node("a"), w.node("b")
	begun := make(chan struct{})
	b.HandleCall("wait", func(ctx context.Context, _ string, _ json.RawMessage) (any, error) {
		close(begun)
		<-ctx.Done()
		return nil, ctx.Err()
	})
	go func() {
		<-begun
		b.Disconnect("a")
	}()
	if err := a.Call(t.Context(), "b", "wait", nil, nil); !errors.Is(err, ErrNoAnswer) {
		t.Fatalf("got %v", err)
	}
}

func TestUnreachable(t *testing.T) {
	w := newWorld(t, nil)
	a := w.node("a")
	l := must[net.Listener](t)(net.Listen("tcp", "127.0.0.1:0"))
	w.set(func() { w.addrs["b"] = l.Addr().String() })
	_ = l.Close()
	for _, node := range []string{"b", "stranger"} {
		err := a.Call(t.Context(), node, "echo", nil, nil)
		e := bulkhead.AsError(err)
		if e.Kind != bulkhead.Unavailable || e.Code != "node_unreachable" || e.RetryAfter <= 0 || errors.Is(err, ErrNoAnswer) {
			t.Errorf("%s: %v", node, err)
		}
	}
	if p := a.Peers(); len(p) != 2 || p[0].Node != "b" || p[0].Connected || p[0].Err == nil {
		t.Errorf("peers: %+v", p)
	}
}
