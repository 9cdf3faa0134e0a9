package chat

import (
	"context"
	"errors"
	"io"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bulkhead-ai/bulkhead"
)

// slowBody is a provider's answer of three pieces with a pause before each.
type slowBody struct {
	pause  time.Duration
	pieces int
}

func (b *slowBody) Read(p []byte) (int, error) {
	if b.pieces++; b.pieces > 3 {
		return 0, io.EOF
	}
	time.Sleep(b.pause)
	return copy(p, "piece"), nil
}

func (*slowBody) Close() error { return nil }

// slowSink is a client that takes its time for every piece.
type slowSink struct {
	pause time.Duration
	got   int
}

func (*slowSink) head(int) error { return nil }

func (s *slowSink) data(ctx context.Context, b []byte) error {
	time.Sleep(s.pause)
	s.got += len(b)
	return context.Cause(ctx)
}

func (*slowSink) finish(context.Context) error { return nil }

func (*slowSink) end() (bool, *bulkhead.Usage) { return true, nil }

// TestWatchdogCountsTheProviderOnly: the time that the client takes is not
// counted against the provider, the provider's own is, piece by piece.
func TestWatchdogCountsTheProviderOnly(t *testing.T) {
	const silence = 10 * time.Second
	for _, c := range []struct {
		name             string
		provider, client time.Duration
		want             error
	}{
		{"slow client", 0, 4 * silence, nil},
		{"slow both, within the silence", silence - 1, 4 * silence, nil},
		{"silent provider", silence + 1, 0, errUpstreamSilent},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancelCause(t.Context())
				watch := newWatchdog(cancel, silence)
				defer watch.stop()
				s := &slowSink{pause: c.client}
				err := copyBody(ctx, &http.Response{Body: &slowBody{pause: c.provider}}, watch, s)
				if !errors.Is(err, c.want) || c.want == nil && s.got != 3*len("piece") {
					t.Errorf("%d bytes, %v, want %v", s.got, err, c.want)
				}
			})
		})
	}
}
