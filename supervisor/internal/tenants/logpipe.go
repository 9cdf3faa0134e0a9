package tenants

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// The bounds of a worker's log.
const (
	maxLogLine   = 8 << 10 // bytes; what is longer is cut
	linesASecond = 100
	linesAtOnce  = 1000
)

// relayLog reads a worker's log until it ends and writes it to log, which knows
// the tenant. A worker's line is data: it becomes one field of our own line, so
// that it cannot pretend to be another tenant or another field, and what comes
// too fast is counted instead.
func relayLog(pipe io.Reader, log *zap.Logger) {
	r := bufio.NewReaderSize(pipe, maxLogLine)
	allowance := lineAllowance{left: linesAtOnce, last: time.Now()}
	for {
		line, err := r.ReadSlice('\n')
		cut := errors.Is(err, bufio.ErrBufferFull)
		if len(line) > 0 {
			if ok, dropped := allowance.take(time.Now()); ok {
				relayLine(log, line, dropped)
			}
		}
		if cut {
			err = skipLine(r)
		}
		if err != nil {
			return
		}
	}
}

func relayLine(log *zap.Logger, line []byte, dropped int) {
	text := strings.TrimRight(string(line), "\r\n")
	level, field := zapcore.InfoLevel, zap.String("text", strings.ToValidUTF8(text, string(utf8.RuneError)))
	var head struct {
		Level string `json:"level"`
	}
	if text != "" && text[0] == '{' && utf8.ValidString(text) && json.Unmarshal([]byte(text), &head) == nil {
		level, field = relayLevel(head.Level), zap.Any("line", json.RawMessage(text))
	}
	if e := log.Check(level, "worker log"); e != nil {
		if dropped > 0 {
			e.Write(field, zap.Int("dropped_before", dropped))
			return
		}
		e.Write(field)
	}
}

// relayLevel believes a worker up to error; the levels beyond end a process.
func relayLevel(s string) zapcore.Level {
	switch s {
	case "debug":
		return zapcore.DebugLevel
	case "warn":
		return zapcore.WarnLevel
	case "error", "dpanic", "panic", "fatal":
		return zapcore.ErrorLevel
	}
	return zapcore.InfoLevel
}

func skipLine(r *bufio.Reader) error {
	for {
		if _, err := r.ReadSlice('\n'); !errors.Is(err, bufio.ErrBufferFull) {
			return err
		}
	}
}

// lineAllowance is a token bucket for lines.
type lineAllowance struct {
	left    float64
	last    time.Time
	dropped int
}

// take reports whether a line may pass, and how many were dropped before it.
func (a *lineAllowance) take(now time.Time) (ok bool, dropped int) {
	a.left = min(linesAtOnce, a.left+now.Sub(a.last).Seconds()*linesASecond)
	a.last = now
	if a.left < 1 {
		a.dropped++
		return false, 0
	}
	a.left--
	dropped, a.dropped = a.dropped, 0
	return true, dropped
}
