package host

import (
	"strconv"
	"sync"
	"time"

	"go.uber.org/zap"
)

const (
	maxLine       = 1024 // bytes of a line that are logged
	linesPerBurst = 20   // lines that are logged within logBurst
	logBurst      = time.Second
)

// logSink carries what a plugin writes into the log: escaped, each line capped,
// so many lines a second and no more. It is safe for concurrent use.
type logSink struct {
	log  *zap.Logger
	name string

	mu      sync.Mutex
	since   time.Time
	lines   int
	dropped int
	closed  bool
}

func newLogSink(log *zap.Logger, name string) *logSink { return &logSink{log: log, name: name} }

// stream is a writer for one of the plugin's streams.
func (s *logSink) stream(name string) *logStream { return &logStream{sink: s, name: name} }

func (s *logSink) line(stream string, line []byte, cut bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	if now := time.Now(); now.Sub(s.since) >= logBurst {
		s.reportDropped()
		s.since, s.lines = now, 0
	}
	if s.lines >= linesPerBurst {
		s.dropped++
		return
	}
	s.lines++
	s.log.Info("plugin output", zap.String("plugin", s.name), zap.String("stream", stream),
		zap.String("line", escape(string(line))), zap.Bool("cut", cut))
}

func (s *logSink) reportDropped() {
	if s.dropped > 0 {
		s.log.Warn("plugin output dropped", zap.String("plugin", s.name), zap.Int("lines", s.dropped))
		s.dropped = 0
	}
}

func (s *logSink) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reportDropped()
	s.closed = true
}

// logStream cuts what is written into lines. go-plugin writes to one stream from
// one goroutine.
type logStream struct {
	sink *logSink
	name string
	buf  []byte
	cut  bool
}

func (w *logStream) Write(p []byte) (int, error) {
	for _, c := range p {
		switch {
		case c == '\n':
			if len(w.buf) > 0 {
				w.sink.line(w.name, w.buf, w.cut)
			}
			w.buf, w.cut = w.buf[:0], false
		case len(w.buf) < maxLine:
			w.buf = append(w.buf, c)
		default:
			w.cut = true
		}
	}
	return len(p), nil
}

// escape makes foreign text safe for a log: printable ASCII, one line, capped.
func escape(s string) string {
	if len(s) > maxLine {
		s = s[:maxLine]
	}
	q := strconv.QuoteToASCII(s)
	return q[1 : len(q)-1]
}
