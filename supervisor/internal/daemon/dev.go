package daemon

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"github.com/bulkhead-ai/bulkhead/configs"
	"github.com/bulkhead-ai/bulkhead/configs/manifest"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/apikey"
	"github.com/bulkhead-ai/bulkhead/worker/durable"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

//go:embed demo.yaml
var demoYAML string

// DevOptions are what `bulkhead dev` may be told.
type DevOptions struct {
	Data        string // directory; made if missing
	Listen      string // data plane, a loopback address
	AdminListen string
	Version     string
	Out         io.Writer // where the greeting goes
}

// demoKeys are the keys that dev.env names.
var demoKeys = []struct{ variable, tenant, env string }{
	{"ACME_PROD_KEY", "acme", "prod"},
	{"ACME_TEST_KEY", "acme", "test"},
	{"GLOBEX_PROD_KEY", "globex", "prod"},
}

// Dev runs one node with two demo tenants until ctx is done. Started again on
// the same data it keeps everything, keys included.
func Dev(ctx context.Context, o DevOptions) error {
	data, err := filepath.Abs(o.Data)
	if err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	cfg := configs.Defaults()
	cfg.NodeID, cfg.DataDir, cfg.Listen, cfg.Admin.Listen = "dev", data, o.Listen, o.AdminListen
	cfg.Cluster.KeyFile, cfg.Isolation.Mode, cfg.Log.Level = filepath.Join(data, "cluster.key"), configs.BestEffort, "warn"
	log, err := NewLogger(cfg.Log.Level)
	if err != nil {
		return err
	}
	open, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	n, err := Open(open, cfg, Options{CreateKey: true, Version: o.Version, Log: log})
	if err != nil {
		return err
	}
	if err := n.seed(open); err != nil {
		n.Close()
		return fmt.Errorf("set up the demo tenants: %w", err)
	}
	if err := n.writeDevEnv(open, filepath.Join(data, "dev.env")); err != nil {
		n.Close()
		return fmt.Errorf("write dev.env: %w", err)
	}
	n.greet(o.Out, data)
	return n.Run(ctx)
}

// seed applies the demo's desired state to a new node.
func (n *Node) seed(ctx context.Context) error {
	if len(n.cluster.State().Tenants()) > 0 {
		return nil
	}
	objects, err := manifest.Decode("demo.yaml", strings.NewReader(demoYAML))
	if err != nil {
		return err
	}
	_, err = n.cluster.Propose(ctx, &command.Apply{Upsert: objects})
	return err
}

// writeDevEnv writes what a shell needs to talk to the node. Keys that are in
// the file and still valid stay.
func (n *Node) writeDevEnv(ctx context.Context, path string) error {
	old, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	token, err := n.adminToken()
	if err != nil {
		return err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "BULKHEAD_URL=http://%s\nBULKHEAD_ADDR=http://%s\nBULKHEAD_TOKEN=%s\n", n.gateway.Addr(), n.admin.Addr(), token)
	names := "BULKHEAD_URL BULKHEAD_ADDR BULKHEAD_TOKEN"
	for _, k := range demoKeys {
		secret, err := n.demoKey(ctx, string(old), k.variable, k.tenant, k.env)
		if err != nil {
			return err
		}
		if secret != "" {
			fmt.Fprintf(&b, "%s=%s\n", k.variable, secret)
			names += " " + k.variable
		}
	}
	// Apart from the values, which scripts read as NAME=VALUE; without it, what
	// the shell starts would not see them.
	fmt.Fprintf(&b, "export %s # each NAME=VALUE above\n", names)
	return durable.Replace(path, []byte(b.String()))
}

// demoKey finds a still valid key in old or creates one; "" when its tenant was
// deleted.
func (n *Node) demoKey(ctx context.Context, old, variable, tenant, env string) (string, error) {
	for line := range strings.Lines(old) {
		name, secret, _ := strings.Cut(strings.TrimSpace(line), "=")
		if name != variable {
			continue
		}
		hash := apikey.HashKey([]byte(secret))
		if e := n.table.Lookup(&hash); e != nil && !e.Revoked {
			return secret, nil
		}
	}
	if _, ok := n.cluster.State().Tenant(bulkhead.TenantID(tenant)); !ok {
		return "", nil
	}
	secret, hash := apikey.NewKey()
	_, err := n.cluster.Propose(ctx, &command.CreateKey{Key: command.Key{
		ID: bulkhead.KeyID("key_" + strings.ToLower(variable) + "_" + fmt.Sprint(time.Now().UnixMilli())), Hash: hash[:], Display: apikey.Display(secret),
		Tenant: bulkhead.TenantID(tenant), Project: "chat", Env: env, Account: "web",
	}})
	var refused *bulkhead.Error
	if errors.As(err, &refused) && refused.Kind == bulkhead.NotFound {
		return "", nil // the demo's project was deleted
	}
	return secret, err
}

func (n *Node) adminToken() (string, error) {
	if _, err := admin.OpenToken(n.tokenFile()); err != nil { // makes the token file
		return "", err
	}
	b, err := os.ReadFile(n.tokenFile())
	return strings.TrimSpace(string(b)), err
}

func (n *Node) greet(out io.Writer, data string) {
	fmt.Fprintf(out, "bulkhead dev: data plane http://%s/v1, admin http://%s, data in %s\n", n.gateway.Addr(), n.admin.Addr(), data)
	for _, l := range n.spawner.Layers() {
		if !l.On {
			fmt.Fprintf(out, "  sandbox: %s is off here: %s\n", l.Name, l.Detail)
		}
	}
	fmt.Fprintf(out, `
  . %s
  curl -s $BULKHEAD_URL/v1/chat/completions -H "Authorization: Bearer $ACME_PROD_KEY" -H 'Content-Type: application/json' -d '{"model":"echo","messages":[{"role":"user","content":"hello"}]}'

`, filepath.Join(data, "dev.env"))
}

// Serve runs a node as its configuration says until ctx is done.
func Serve(ctx context.Context, cfg configs.Server, version string) error {
	log, err := NewLogger(cfg.Log.Level)
	if err != nil {
		return err
	}
	open, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	n, err := Open(open, cfg, Options{Version: version, Log: log})
	if err != nil {
		return err
	}
	return n.Run(ctx)
}

// NewLogger writes JSON lines to standard error.
func NewLogger(level string) (*zap.Logger, error) {
	if level == "" {
		level = "info"
	}
	c := zap.NewProductionConfig()
	if err := c.Level.UnmarshalText([]byte(level)); err != nil {
		return nil, fmt.Errorf("log level %q: %w", level, err)
	}
	c.Sampling = nil // what an operator looks for is never dropped
	c.EncoderConfig.EncodeTime = zapcore.ISO8601TimeEncoder
	return c.Build()
}
