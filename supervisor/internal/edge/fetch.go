package edge

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/configs/manifest"
	"github.com/bulkhead-ai/bulkhead/worker/durable"
	"go.uber.org/zap"
)

// maxPlugin bounds a binary in bytes, as the admin API does.
const maxPlugin = 256 << 20

// PluginsConfig is what the exchange of plugin binaries works on.
type PluginsConfig struct {
	Node    string          // this one
	Dir     string          // existing folder of binaries, named by their SHA-256 in hex
	Dialer  Dialer          // nil on a node that is alone
	Members func() []string // the nodes of the cluster, this one may be among them
	Log     *zap.Logger     // nil = none
}

// Plugins fetches plugin binaries that this node lacks, and sends others those it
// has. A binary is its SHA-256: what a peer sends is hashed while it is written
// and appears under its name only if it is the one that was asked for. Its
// methods may be called concurrently.
type Plugins struct {
	cfg     PluginsConfig
	serving chan struct{}

	mu      sync.Mutex
	running map[string]*download // by digest
}

// download is one fetch that everybody who asks for the digest waits for.
type download struct {
	done chan struct{}
	err  error // valid once done is closed
}

// OpenPlugins removes what a crash left of downloads and uploads.
func OpenPlugins(cfg PluginsConfig) *Plugins {
	if cfg.Log == nil {
		cfg.Log = zap.NewNop()
	}
	if err := durable.Sweep(cfg.Dir); err != nil { // costs disk space only
		cfg.Log.Warn("remove unfinished plugins", zap.Error(err))
	}
	return &Plugins{cfg: cfg, serving: make(chan struct{}, servedAtOnce), running: map[string]*download{}}
}

// Register makes this node's binaries available to others.
func (p *Plugins) Register(m Mux) { m.HandleStream(ServicePlugin, p.ServePlugin) }

// Fetch answers the path of a binary, after getting it from another node if need
// be. Concurrent calls for one digest share one download, which is that of the
// first caller: when its context ends, the next one starts again.
func (p *Plugins) Fetch(ctx context.Context, digest string) (string, error) {
	if !validDigest(digest) {
		return "", fmt.Errorf("fetch plugin %.80q: not a SHA-256", digest)
	}
	path := filepath.Join(p.cfg.Dir, digest)
	for {
		if _, err := os.Stat(path); err == nil {
			return path, nil
		} else if !errors.Is(err, os.ErrNotExist) {
			return "", fmt.Errorf("find plugin: %w", err)
		}
		d, mine := p.begin(digest)
		if mine {
			d.err = p.download(ctx, digest)
			p.end(digest, d)
			if d.err != nil {
				return "", d.err
			}
			continue
		}
		select {
		case <-d.done:
		case <-ctx.Done():
			return "", fmt.Errorf("wait for plugin %s: %w", digest, ctx.Err())
		}
		if d.err != nil && !errors.Is(d.err, context.Canceled) && !errors.Is(d.err, context.DeadlineExceeded) {
			return "", d.err
		}
	}
}

func (p *Plugins) begin(digest string) (d *download, mine bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if d := p.running[digest]; d != nil {
		return d, false
	}
	d = &download{done: make(chan struct{})}
	p.running[digest] = d
	return d, true
}

func (p *Plugins) end(digest string, d *download) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.running, digest)
	close(d.done)
}

// download asks the members in turn.
func (p *Plugins) download(ctx context.Context, digest string) error {
	if p.cfg.Dialer == nil || p.cfg.Members == nil {
		return fmt.Errorf("plugin %s is not on this node, and there is no other", digest)
	}
	var failures []error
	for _, node := range p.cfg.Members() {
		if node == p.cfg.Node || ctx.Err() != nil {
			continue
		}
		err := p.downloadFrom(ctx, node, digest)
		if err == nil {
			p.cfg.Log.Info("fetched plugin", zap.String("sha256", digest), zap.String("from", node))
			return nil
		}
		failures = append(failures, fmt.Errorf("from node %s: %w", node, err))
	}
	return fmt.Errorf("fetch plugin %s: %w", digest, errors.Join(append(failures, errNowhere, ctx.Err())...))
}

var errNowhere = bulkhead.E(bulkhead.Unavailable, "plugin_unavailable", "No node that can be reached has the plugin's binary.")

func (p *Plugins) downloadFrom(ctx context.Context, node, digest string) error {
	conn, err := p.cfg.Dialer.Open(ctx, node, ServicePlugin)
	if err != nil {
		return err
	}
	defer closeNow(conn)
	defer context.AfterFunc(ctx, func() { closeNow(conn) })()
	conn.SetDeadline(time.Now().Add(pluginSilence))
	if err := writeFrame(conn, pluginAsk{digest}); err != nil {
		return err
	}
	var a pluginAnswer
	if err := readFrame(conn, &a); err != nil {
		return err
	}
	switch {
	case !a.Found:
		return errors.New("it has no such binary")
	case a.Size <= 0 || a.Size > maxPlugin:
		return fmt.Errorf("it offers %d bytes", a.Size)
	}
	return p.store(&patient{conn}, a.Size, digest)
}

// store writes size bytes to a file that gets its name once they are verified
// and on disk.
func (p *Plugins) store(from io.Reader, size int64, digest string) error {
	f, err := durable.New(filepath.Join(p.cfg.Dir, "fetch"))
	if err != nil {
		return fmt.Errorf("store plugin: %w", err)
	}
	defer f.Discard()
	sum := sha256.New()
	if _, err := io.CopyN(io.MultiWriter(f, sum), from, size); err != nil {
		return fmt.Errorf("receive plugin: %w", err)
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != digest {
		return fmt.Errorf("receive plugin: its SHA-256 is %s", got)
	}
	if err = f.Chmod(0o500); err == nil {
		err = f.CommitAs(filepath.Join(p.cfg.Dir, digest))
	}
	if err != nil {
		return fmt.Errorf("store plugin: %w", err)
	}
	return nil
}

// refetchAfter is the pause after a fetch by Run that failed.
const refetchAfter = 5 * time.Second

// Objects is the part of the state that Run reads.
type Objects interface {
	Objects(kind manifest.Kind) []manifest.Object
}

// Run fetches every binary that the state names, now and whenever changed
// yields, and removes one that the state has named before and names no more. It
// ends with ctx.
func (p *Plugins) Run(ctx context.Context, state Objects, changed <-chan struct{}) {
	named := map[string]bool{}
	for ctx.Err() == nil {
		wanted := map[string]bool{}
		for _, o := range state.Objects(manifest.KindPlugin) {
			wanted[o.PluginSpec.SHA256] = true
		}
		var retry <-chan time.Time
		for digest := range wanted {
			if _, err := p.Fetch(ctx, digest); err != nil {
				p.cfg.Log.Warn("plugin is missing", zap.Error(err))
				retry = time.After(refetchAfter)
			}
		}
		for digest := range named {
			if !wanted[digest] && validDigest(digest) {
				os.Remove(filepath.Join(p.cfg.Dir, digest)) // a failure costs disk space only
			}
		}
		named = wanted
		select {
		case <-changed:
		case <-retry:
		case <-ctx.Done():
		}
	}
}
