package daemon

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/bulkhead-ai/bulkhead/configs/manifest"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin/wire"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/apikey"
	"github.com/bulkhead-ai/bulkhead/worker/durable"
)

// cli runs the command line against the cluster.
func (d *devNodes) cli(ctx context.Context, stdin string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, d.program, args...)
	cmd.Env = append(os.Environ(), "BULKHEAD_ADDR="+d.addrs(), "BULKHEAD_TOKEN="+d.token)
	cmd.Stdin = strings.NewReader(stdin)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("bulkhead %s: %w: %s", strings.Join(args[:min(2, len(args))], " "), err, bytes.TrimSpace(errs.Bytes()))
	}
	return out.Bytes(), nil
}

func (d *devNodes) cliJSON(ctx context.Context, out any, args ...string) error {
	raw, err := d.cli(ctx, "", args...)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(raw, out); err != nil {
		return fmt.Errorf("read answer of bulkhead %s: %w", args[0], err)
	}
	return nil
}

// demo makes the demo tenants in a new cluster and writes dev.env.
func (d *devNodes) demo(ctx context.Context) error {
	var objects []struct {
		Kind     manifest.Kind
		Metadata struct{ Name string }
	}
	if err := d.cliJSON(ctx, &objects, "get", "all", "-o", "json"); err != nil {
		return err
	}
	if len(objects) == 0 {
		if _, err := d.cli(ctx, demoYAML, "apply", "-f", "-"); err != nil {
			return fmt.Errorf("set up the demo tenants: %w", err)
		}
		if err := d.cliJSON(ctx, &objects, "get", "all", "-o", "json"); err != nil {
			return err
		}
	}
	var tenants []string
	for _, o := range objects {
		if o.Kind == manifest.KindTenant {
			tenants = append(tenants, o.Metadata.Name)
		}
	}
	if err := d.writeEnv(ctx, tenants); err != nil {
		return fmt.Errorf("write dev.env: %w", err)
	}
	return nil
}

// writeEnv writes what a shell needs to talk to the cluster. Keys that are in the
// file and still valid stay.
func (d *devNodes) writeEnv(ctx context.Context, tenants []string) error {
	path := filepath.Join(d.data, "dev.env")
	old, err := readIfThere(path)
	if err != nil {
		return err
	}
	var keys []wire.Key
	if err := d.cliJSON(ctx, &keys, "key", "list", "-o", "json"); err != nil {
		return err
	}
	var b strings.Builder
	names := "BULKHEAD_URL BULKHEAD_URLS BULKHEAD_ADDR BULKHEAD_TOKEN"
	fmt.Fprintf(&b, "BULKHEAD_URL=http://%s\nBULKHEAD_URLS=%s\nBULKHEAD_ADDR=%s\nBULKHEAD_TOKEN=%s\n", d.nodes[0].listen, d.urls(), d.addrs(), d.token)
	for _, k := range demoKeys {
		secret := keptKey(old, k.variable, keys)
		if secret == "" && slices.Contains(tenants, k.tenant) {
			if secret, err = d.newKey(ctx, k.tenant, k.env); err != nil {
				return err
			}
		}
		if secret != "" {
			fmt.Fprintf(&b, "%s=%s\n", k.variable, secret)
			names += " " + k.variable
		}
	}
	fmt.Fprintf(&b, "export %s # each NAME=VALUE above\n", names)
	return durable.Replace(path, []byte(b.String()))
}

// keptKey finds a key in an old dev.env that the cluster still knows, by what it
// shows of it.
func keptKey(old, variable string, keys []wire.Key) string {
	for line := range strings.Lines(old) {
		name, secret, _ := strings.Cut(strings.TrimSpace(line), "=")
		if name != variable || apikey.ParseKey([]byte(secret)) != nil {
			continue
		}
		for _, k := range keys {
			if k.Display == apikey.Display(secret) && k.RevokedAt.IsZero() {
				return secret
			}
		}
	}
	return ""
}

func (d *devNodes) newKey(ctx context.Context, tenant, env string) (string, error) {
	var k wire.KeyCreated
	err := d.cliJSON(ctx, &k, "key", "create", "--tenant", tenant, "--project", "chat", "--env", env, "--service-account", "web", "-o", "json")
	if err != nil && strings.Contains(err.Error(), "There is no") {
		return "", nil // the demo's project was deleted
	}
	return k.Key, err
}

func (d *devNodes) greet(ctx context.Context) {
	for _, n := range d.nodes {
		fmt.Fprintf(d.out, "bulkhead dev: %s: data plane http://%s/v1, admin http://%s, pid in %s\n", n.id, n.listen, n.admin, n.pid())
	}
	var layers []checkedLayer
	if err := d.cliJSON(ctx, &layers, "doctor", "--config", d.nodes[0].config(), "-o", "json"); err == nil {
		for _, l := range layers {
			if !l.On {
				fmt.Fprintf(d.out, "  sandbox: %s is off here: %s\n", l.Layer, l.Detail)
			}
		}
	}
	fmt.Fprintf(d.out, `
  . %s
  curl -s $BULKHEAD_URL/v1/chat/completions -H "Authorization: Bearer $ACME_PROD_KEY" -H 'Content-Type: application/json' -d '{"model":"echo","messages":[{"role":"user","content":"hello"}]}'

`, filepath.Join(d.data, "dev.env"))
}
