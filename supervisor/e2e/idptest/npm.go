package idptest

import (
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// OIDCProvider is a running oidc-provider from npm.
type OIDCProvider struct {
	Issuer string
	p      process
}

// StartOIDCProvider starts it, or skips the story where there is no Node.
func StartOIDCProvider(t testing.TB, people []Person) *OIDCProvider {
	t.Helper()
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skip("node is not installed: the npm package oidc-provider needs it")
	}
	dir := filepath.Join(Source, "oidc-provider")
	if _, err := os.Stat(filepath.Join(dir, "node_modules", "oidc-provider")); err != nil {
		if os.Getenv("CI") != "true" {
			t.Skip("the npm package is not installed: run `npm ci` in scripts/idp/oidc-provider")
		}
		cmd := exec.Command("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("npm ci: %v\n%s", err, out)
		}
	}
	list, err := json.Marshal(people)
	if err != nil {
		t.Fatal(err)
	}
	addr := freePort(t)
	o := &OIDCProvider{Issuer: "http://" + addr}
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	o.p = process{t: t, name: node, args: []string{"server.mjs", port, string(list)}, dir: dir, log: filepath.Join(t.TempDir(), "oidc-provider.log")}
	t.Cleanup(func() { o.Stop(); o.p.tell() })
	o.Start()
	return o
}

// Start starts one that was stopped; it has new keys then.
func (o *OIDCProvider) Start() { o.p.start(o.Issuer + "/.well-known/openid-configuration") }

// Stop takes it down.
func (o *OIDCProvider) Stop() { o.p.stop() }
