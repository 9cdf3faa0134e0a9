package tenants

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"github.com/bulkhead-ai/bulkhead/configs/manifest"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

func TestRelayLogBounds(t *testing.T) {
	core, logs := observer.New(zapcore.DebugLevel)
	long := strings.Repeat("x", 3*maxLogLine)
	input := "plain\n" + long + "\n" + `{"level":"fatal","msg":"x"}` + "\n" + "\xff\xfe\n" + `{"level":` + "\n\nlast"
	relayLog(strings.NewReader(input), zap.New(core))
	var got []string
	for _, e := range logs.All() {
		if e.Level > zapcore.ErrorLevel {
			t.Errorf("a worker's line has level %s, which ends a process", e.Level)
		}
		text, _ := e.ContextMap()["text"].(string)
		if len(text) > maxLogLine {
			t.Errorf("a line of %d bytes", len(text))
		}
		got = append(got, text[:min(len(text), 10)])
	}
	want := []string{"plain", "xxxxxxxxxx", "", "\ufffd", `{"level":`, "", "last"}
	if fmt.Sprintf("%q", got) != fmt.Sprintf("%q", want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestRelayLogDropsAFlood(t *testing.T) {
	core, logs := observer.New(zapcore.DebugLevel)
	relayLog(strings.NewReader(strings.Repeat("x\n", 100*linesAtOnce)), zap.New(core))
	if n := logs.Len(); n < linesAtOnce || n > 10*linesAtOnce {
		t.Errorf("%d lines passed", n)
	}
}

func FuzzRelayLog(f *testing.F) {
	f.Add([]byte(`{"level":"error"}` + "\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		core := zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), zapcore.AddSync(discard{t}), zapcore.DebugLevel)
		relayLog(strings.NewReader(string(raw)), zap.New(core).With(zap.String("tenant", "acme")))
	})
}

// discard checks that each record is one line.
type discard struct{ t *testing.T }

func (d discard) Write(b []byte) (int, error) {
	if strings.Count(string(b), "\n") != 1 || b[len(b)-1] != '\n' {
		d.t.Errorf("not one line: %q", b)
	}
	return len(b), nil
}

func TestSocketNames(t *testing.T) {
	dir, err := os.MkdirTemp("", "bh")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	os.Chmod(dir, 0o755)
	for _, name := range []string{"1.r", "2.q", "kept"} {
		os.WriteFile(filepath.Join(dir, name), nil, 0o600)
	}
	names, err := newSocketNames(dir)
	if err != nil {
		t.Fatal(err)
	}
	left, _ := os.ReadDir(dir)
	if st, _ := os.Stat(dir); st.Mode().Perm() != 0o700 || len(left) != 1 {
		t.Fatalf("mode %v, left %v", st.Mode(), left)
	}
	names.last.Store(1<<64 - 2)
	r, q := names.next()
	for _, path := range []string{r, q} {
		f, err := listen(path)
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	if _, err := newSocketNames("/" + strings.Repeat("x", maxSocketPath)); err == nil {
		t.Fatal("a path that cannot be bound was accepted")
	}
}

func TestDirectoriesRefuseNames(t *testing.T) {
	d, err := openDirectories(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []bulkhead.TenantID{"", "..", "a/b", "A", "a\x00"} {
		if dir, err := d.prepare(id, 1); err == nil {
			t.Errorf("%q: %s", id, dir)
		}
	}
}

// TestDirectoryOfADeletedTenant: a tenant that is made again under the name of a
// deleted one does not meet its data; the same tenant always meets its own.
func TestDirectoryOfADeletedTenant(t *testing.T) {
	d, err := openDirectories(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	write := func(slot uint32) string {
		t.Helper()
		dir, err := d.prepare("acme", slot)
		if err != nil {
			t.Fatal(err)
		}
		return filepath.Join(dir, dataName, "journal")
	}
	old := write(1)
	if err := os.MkdirAll(old, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(write(1)); err != nil {
		t.Fatalf("the tenant's own data is gone: %v", err)
	}
	if _, err := os.Stat(write(2)); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("the new tenant meets the old one's data: %v", err)
	}
	slot := filepath.Join(filepath.Dir(filepath.Dir(old)), slotName)
	if err := os.WriteFile(slot, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := d.prepare("acme", 2); err == nil {
		t.Error("a damaged note of the slot was taken for another tenant's")
	}
}

func TestPolicyKeys(t *testing.T) {
	n := newNode(t, Config{},
		manifest.Object{Ref: ref(manifest.KindProject, "acme", "p"), ProjectSpec: &manifest.Project{Environments: map[string]manifest.Environment{"prod": {}}}},
		manifest.Object{Ref: manifest.Ref{Kind: manifest.KindServiceAccount, Tenant: "acme", Project: "p", Name: "bot"}, ServiceAccountSpec: &manifest.ServiceAccount{Owner: "d@bank.example"}},
	)
	const revoked = maxRevoked + 10
	for i := range revoked + 1 {
		id := bulkhead.KeyID(fmt.Sprintf("k%d", i))
		n.propose(&command.CreateKey{Key: command.Key{
			ID: id, Hash: []byte(fmt.Sprintf("%032d", i)), Display: "bh_...", Tenant: "acme", Project: "p", Env: "prod", Account: "bot",
		}})
		if i > 0 {
			n.propose(&command.RevokeKey{ID: id})
		}
	}
	p, _, problems, err := Policy(n.cluster.State().View(), "acme", n.box.OpenCredential)
	if err != nil || problems != nil {
		t.Fatal(err, problems)
	}
	if len(p.Keys) != maxRevoked+1 || p.Keys[0].ID != "k0" || p.Keys[0].Revoked || p.Keys[0].Owner != "d@bank.example" || !p.Keys[1].Revoked {
		t.Fatalf("%d keys, first %+v", len(p.Keys), p.Keys[:2])
	}
	if len(p.Accounts) != 1 || len(p.Projects) != 1 {
		t.Fatalf("accounts %+v, projects %+v", p.Accounts, p.Projects)
	}
}
