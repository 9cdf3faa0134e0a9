package cli_test

import (
	"bytes"
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"github.com/bulkhead-ai/bulkhead/cluster/state"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin/admintest"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/cli"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/seal"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/shares"
)

// watched is the fixture's state for the key shares, which need no news of it.
type watched struct{ admin.Cluster }

func (w watched) State() *state.State { return w.Cluster.State() }

func (watched) Watch() (<-chan struct{}, func()) { return nil, func() {} }

func TestShares(t *testing.T) {
	dir := t.TempDir()
	store, err := shares.Open(filepath.Join(dir, "shares"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	var ring *shares.Ring
	f := admintest.Start(t, nil, nil, func(cfg *admin.Config) {
		exchange, err := shares.NewExchange(shares.Config{Node: "n1", Store: store, Cluster: watched{cfg.Cluster}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(exchange.Close)
		ring = shares.NewRing(cfg.Vault.(*seal.Box), exchange)
		cfg.Shares = ring
	})
	s := &shell{t: t, env: map[string]string{"BULKHEAD_ADDR": f.URL, "BULKHEAD_TOKEN": admintest.Token, "UPSTREAM_KEY": "sk-canary"}}
	s.ok("apply", "-f", s.file("acme.yaml", desired))
	key, wrapped, id, err := ring.NewDataKey(t.Context(), "acme")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Cluster.Propose(t.Context(), &command.SetDataKey{Tenant: "acme", Wrapped: wrapped, ShareID: id}); err != nil {
		t.Fatal(err)
	}
	owner, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	share, err := store.Get("acme", id)
	if err != nil {
		t.Fatal(err)
	}
	file, recipient := filepath.Join(dir, "escrow"), owner.Recipient().String()
	identity := s.file("identity", "# created by the owner\n"+owner.String()+"\n")

	s.fails(cli.WrongUsage, "--recipient", "cluster", "shares", "save", "-f", file, "--reason", "backup")
	s.fails(cli.WrongUsage, "-f is missing", "cluster", "shares", "save", "--recipient", recipient, "--reason", "backup")
	s.fails(cli.Failed, "say why", "cluster", "shares", "save", "--recipient", recipient, "-f", file)
	s.ok("cluster", "shares", "save", "--recipient", recipient, "-f", file, "--reason", "backup")
	raw, err := os.ReadFile(file)
	if err != nil || bytes.Contains(raw, share) {
		t.Fatalf("escrow file: %v, or the share in clear", err)
	}
	if st, _ := os.Stat(file); st.Mode().Perm() != 0o600 {
		t.Errorf("escrow file has mode %v", st.Mode())
	}

	restore := []string{"cluster", "shares", "restore", "-f", file, "--identity", identity, "--reason", "new machines"}
	if err := store.Forget("acme", id); err != nil {
		t.Fatal(err)
	}
	s.fails(cli.Failed, "say why", restore[:len(restore)-2]...)
	s.fails(cli.Failed, "no age private key", "cluster", "shares", "restore", "-f", file, "--identity", s.file("other", "x"), "--reason", "x")
	s.fails(cli.Failed, "decrypt", "cluster", "shares", "restore", "-f", s.file("bad", "x"), "--identity", identity, "--reason", "x")
	if out := s.ok(restore...); !strings.Contains(out, "acme") || !strings.Contains(out, "yes") {
		t.Errorf("restore:\n%s", out)
	}
	if got, err := ring.UnwrapDataKey(t.Context(), "acme", wrapped, id); err != nil || !bytes.Equal(got, key) {
		t.Fatalf("after the restore: %v", err)
	}

	if err := store.Destroy("acme", id); err != nil {
		t.Fatal(err)
	}
	status, out, errs := s.run(restore...)
	if status != cli.Failed || !strings.Contains(out, "destroyed") || !strings.Contains(errs, "1 of 1 key shares were not restored") {
		t.Errorf("of a destroyed share: exit %d\n%s%s", status, out, errs)
	}
	for _, e := range f.Trail.Taken() {
		if text := string(e.After) + string(e.Before); strings.Contains(text, base64.StdEncoding.EncodeToString(share)) {
			t.Error("the trail holds a share")
		}
	}
}
