package admin

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/configs/manifest"
	"github.com/bulkhead-ai/bulkhead/worker/durable"
	"go.uber.org/zap"
)

// storePlugin writes a binary to DIR/<sha256>, mode 0500, and answers its spec.
// The name appears only when the whole file is on disk; storing the same binary
// again changes nothing.
func storePlugin(dir string, body io.Reader) (manifest.Plugin, error) {
	f, err := durable.New(filepath.Join(dir, "upload"))
	if err != nil {
		return manifest.Plugin{}, fmt.Errorf("store plugin: %w", err)
	}
	defer f.Discard()
	head := new(bytes.Buffer)
	sum := sha256.New()
	n, err := io.Copy(io.MultiWriter(f, sum, &firstBytes{head, 4}), io.LimitReader(body, maxPlugin+1))
	switch {
	case err != nil:
		return manifest.Plugin{}, fmt.Errorf("store plugin: %w", err)
	case n > maxPlugin:
		return manifest.Plugin{}, bulkhead.E(bulkhead.TooLarge, "plugin_too_large", fmt.Sprintf("A plugin has at most %d bytes.", maxPlugin))
	case head.String() != "\x7fELF":
		return manifest.Plugin{}, bulkhead.E(bulkhead.InvalidRequest, "invalid_plugin", "The file is no Linux binary (ELF).")
	}
	p := manifest.Plugin{SHA256: hex.EncodeToString(sum.Sum(nil)), Size: n}
	if err = f.Chmod(0o500); err == nil {
		err = f.CommitAs(filepath.Join(dir, p.SHA256))
	}
	if err != nil {
		return manifest.Plugin{}, fmt.Errorf("store plugin: %w", err)
	}
	return p, nil
}

// firstBytes keeps the first left bytes that are written to it.
type firstBytes struct {
	to   *bytes.Buffer
	left int
}

func (w *firstBytes) Write(p []byte) (int, error) {
	n := min(len(p), w.left)
	w.left -= n
	w.to.Write(p[:n])
	return len(p), nil
}

// sweep removes a binary that no plugin names any more. Processes that run it
// keep it open; a failure costs disk space only.
func (a *API) sweep(digest string) {
	if digest == "" {
		return
	}
	for _, o := range a.cfg.Cluster.State().Objects(manifest.KindPlugin) {
		if o.PluginSpec.SHA256 == digest {
			return
		}
	}
	if err := os.Remove(filepath.Join(a.cfg.PluginDir, digest)); err != nil && !errors.Is(err, os.ErrNotExist) {
		a.cfg.Log.Warn("remove plugin binary", zap.String("sha256", digest), zap.Error(err))
	}
}
