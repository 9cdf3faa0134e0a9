package chat

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"
)

// errUpstreamSilent is the cause of a context that the watchdog ended.
var errUpstreamSilent = errors.New("upstream sent nothing in time")

// defaultSilence is how long a provider may be silent when it names no timeout.
const defaultSilence = 120 * time.Second

// watchdog ends an attempt whose provider is silent for too long: until the
// head of the answer, and between any two reads of its body.
type watchdog struct {
	timer   *time.Timer
	silence time.Duration
}

func newWatchdog(cancel context.CancelCauseFunc, silence time.Duration) *watchdog {
	if silence <= 0 {
		silence = defaultSilence
	}
	return &watchdog{timer: time.AfterFunc(silence, func() { cancel(errUpstreamSilent) }), silence: silence}
}

func (w *watchdog) reset() { w.timer.Reset(w.silence) }

func (w *watchdog) stop() { w.timer.Stop() }

// buffers hold pieces of answers between provider and client.
var buffers = sync.Pool{New: func() any { return new([32 << 10]byte) }}

func getBuffer() *[32 << 10]byte { return buffers.Get().(*[32 << 10]byte) }

func putBuffer(b *[32 << 10]byte) { buffers.Put(b) }

func ignoreEOF(err error) error {
	if err == io.EOF {
		return nil
	}
	return err
}
