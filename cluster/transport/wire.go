package transport

import (
	"encoding/binary"
	"net"
	"sync/atomic"
	"time"

	"github.com/hashicorp/yamux"
	"go.uber.org/zap"
)

const (
	streamWindow  = 256 << 10
	writePiece    = 64 << 10 // longest write of a stream that others wait for
	acceptBacklog = 256

	muxHeader = 12 // bytes of yamux's frame header: version, type, flags, stream, length
)

// wire is the connection below a session. It notes when the peer was last
// heard, and joins a frame's header with its body: yamux writes them one after
// the other, which would cost a TLS record and a system call each.
type wire struct {
	net.Conn          // TLS
	below    net.Conn // what TLS runs on

	start  time.Time
	heard  atomic.Int64 // time since start, in ns
	header []byte       // held back until its body comes; used by yamux's sending goroutine alone
}

func newWire(conn, below net.Conn) *wire {
	return &wire{Conn: conn, below: below, start: time.Now(), header: make([]byte, 0, muxHeader+writePiece)}
}

// silence is how long nothing has come from the peer.
func (w *wire) silence() time.Duration {
	return time.Since(w.start) - time.Duration(w.heard.Load())
}

func (w *wire) Read(b []byte) (int, error) {
	n, err := w.Conn.Read(b)
	if n > 0 {
		w.heard.Store(int64(time.Since(w.start)))
	}
	return n, err
}

func (w *wire) Write(b []byte) (int, error) {
	if len(w.header) == 0 && bodyFollows(b) {
		w.header = append(w.header, b...)
		return len(b), nil
	}
	if len(w.header) == 0 {
		return w.Conn.Write(b)
	}
	held := len(w.header)
	w.header = append(w.header, b...)
	n, err := w.Conn.Write(w.header)
	w.header = w.header[:0]
	return max(n-held, 0), err
}

// bodyFollows: a data frame (type 0) that is not empty.
func bodyFollows(b []byte) bool {
	return len(b) == muxHeader && b[1] == 0 && binary.BigEndian.Uint32(b[8:]) > 0
}

// Close does without TLS's goodbye, for which a dead peer would make it wait.
// Streams end by messages of their own, so nothing can be cut off unnoticed.
func (w *wire) Close() error { return w.below.Close() }

func muxConfig(log *zap.Logger) *yamux.Config {
	c := yamux.DefaultConfig()
	c.AcceptBacklog = acceptBacklog
	c.EnableKeepAlive = false // session.watch does it, with one bound for all of it
	c.MaxStreamWindowSize = streamWindow
	c.StreamOpenTimeout = 0  // the watch covers it
	c.StreamCloseTimeout = 0 // would cut a half-closed stream; stop messages do it
	c.LogOutput, c.Logger = nil, muxLog{log.Sugar()}
	return c
}

// muxLog: yamux reports as a warning what is normal when streams are closed
// early. What matters comes back as errors.
type muxLog struct{ log *zap.SugaredLogger }

func (l muxLog) Print(v ...any)            { l.log.Debug(v...) }
func (l muxLog) Printf(f string, v ...any) { l.log.Debugf(f, v...) }
func (l muxLog) Println(v ...any)          { l.log.Debugln(v...) }
