package edge

import (
	"context"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"time"

	"go.uber.org/zap"
)

// pluginAsk is the first frame of a plugin's stream.
type pluginAsk struct {
	SHA256 string `json:"sha256"`
}

// pluginAnswer comes before the bytes.
type pluginAnswer struct {
	Found bool  `json:"found"`
	Size  int64 `json:"size,omitempty"`
}

const (
	servedAtOnce  = 4                // binaries that are sent at a time
	pluginSilence = 30 * time.Second // longest time for a piece of a binary to be sent or taken
)

// validDigest keeps paths out of the plugin folder's names.
func validDigest(s string) bool {
	b, err := hex.DecodeString(s)
	return err == nil && len(b) == 32 && hex.EncodeToString(b) == s
}

// ServePlugin sends a binary of this node to another one, which verifies it. It
// closes the stream.
func (p *Plugins) ServePlugin(ctx context.Context, peer string, conn net.Conn) {
	defer closeNow(conn)
	defer context.AfterFunc(ctx, func() { closeNow(conn) })()
	conn.SetDeadline(time.Now().Add(pluginSilence))
	var ask pluginAsk
	if err := readFrame(conn, &ask); err != nil || !validDigest(ask.SHA256) {
		p.cfg.Log.Warn("plugin stream of another node", zap.String("peer", peer), zap.Error(err))
		return
	}
	select {
	case p.serving <- struct{}{}:
		defer func() { <-p.serving }()
	case <-ctx.Done():
		return
	case <-time.After(pluginSilence / 2):
		return // the peer asks another node
	}
	if err := p.send(conn, ask.SHA256); err != nil {
		p.cfg.Log.Warn("send plugin", zap.String("peer", peer), zap.String("sha256", ask.SHA256), zap.Error(err))
	}
}

func (p *Plugins) send(conn net.Conn, digest string) error {
	f, err := os.Open(filepath.Join(p.cfg.Dir, digest))
	if errors.Is(err, os.ErrNotExist) {
		return writeFrame(conn, pluginAnswer{})
	}
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if err := writeFrame(conn, pluginAnswer{Found: true, Size: info.Size()}); err != nil {
		return err
	}
	_, err = io.CopyN(&patient{conn}, f, info.Size())
	return err
}

// patient gives every piece its own time.
type patient struct{ conn net.Conn }

func (c *patient) Read(p []byte) (int, error) {
	c.conn.SetReadDeadline(time.Now().Add(pluginSilence))
	return c.conn.Read(p)
}

func (c *patient) Write(p []byte) (int, error) {
	c.conn.SetWriteDeadline(time.Now().Add(pluginSilence))
	return c.conn.Write(p)
}
