package cluster

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"github.com/bulkhead-ai/bulkhead/cluster/state"
	"github.com/bulkhead-ai/bulkhead/configs/manifest"
	"github.com/hashicorp/raft"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		os.Exit(child(dir))
	}
	goleak.VerifyTestMain(m)
}

// fatal is a FailStop for tests in which nothing may fail.
func fatal(t *testing.T) func(error) {
	return func(err error) { t.Errorf("node stopped itself: %v", err) }
}

func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func openNode(t *testing.T, cfg Config) *Node {
	t.Helper()
	if cfg.NodeID == "" {
		cfg.NodeID = "n1"
	}
	if cfg.FailStop == nil {
		cfg.FailStop = fatal(t)
	}
	n, err := Open(testContext(t), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return n
}

func reopen(t *testing.T, n *Node) *Node {
	t.Helper()
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	return openNode(t, n.cfg)
}

func propose(t *testing.T, n *Node, cmd command.Command) any {
	t.Helper()
	r, err := n.Propose(testContext(t), cmd)
	if err != nil {
		t.Fatalf("propose %T: %v", cmd, err)
	}
	return r
}

func acme() *command.Apply {
	return &command.Apply{Upsert: []manifest.Object{
		{Ref: manifest.Ref{Kind: manifest.KindTenant, Name: "acme"}, TenantSpec: &manifest.Tenant{Owner: "o@acme.example", CostCenter: "CC-1"}},
		{Ref: manifest.Ref{Kind: manifest.KindProject, Tenant: "acme", Name: "chat"}, ProjectSpec: &manifest.Project{
			Environments: map[string]manifest.Environment{"prod": {}},
		}},
		{Ref: manifest.Ref{Kind: manifest.KindServiceAccount, Tenant: "acme", Project: "chat", Name: "bot"},
			ServiceAccountSpec: &manifest.ServiceAccount{Owner: "dev@acme.example"}},
	}}
}

func key(id string, hash byte) *command.CreateKey {
	h := make([]byte, 32)
	h[0] = hash
	return &command.CreateKey{Key: command.Key{
		ID: bulkhead.KeyID(id), Hash: h, Display: "bh_...", Tenant: "acme", Project: "chat", Env: "prod", Account: "bot",
	}}
}

func wantRevoked(t *testing.T, st *state.State, id bulkhead.KeyID) {
	t.Helper()
	k, ok := st.Key(id)
	if !ok || k.RevokedAt == 0 {
		t.Errorf("key %s: found %v, revoked at %d; want it revoked", id, ok, k.RevokedAt)
	}
}

func TestRestartKeepsEverything(t *testing.T) {
	n := openNode(t, Config{Dir: t.TempDir()})
	propose(t, n, acme())
	propose(t, n, key("k1", 1))
	propose(t, n, key("k2", 2))
	propose(t, n, &command.RevokeKey{ID: "k1"})
	propose(t, n, &command.SetSuspended{Tenant: "acme", Suspended: true})
	propose(t, n, &command.SetDataKey{Tenant: "acme", Wrapped: []byte("wrapped"), ShareID: make([]byte, 32)})
	if e := propose(t, n, &command.BeginEpoch{Tenant: "acme", Node: "n1", PublicKey: make([]byte, 32)}); e != bulkhead.Epoch(1) {
		t.Errorf("first epoch = %v", e)
	}
	want, err := n.State().View().Sum()
	if err != nil {
		t.Fatal(err)
	}
	n = reopen(t, n)
	if got, err := n.State().View().Sum(); err != nil || got != want {
		t.Errorf("state after the restart: sum %x, %v; want %x", got, err, want)
	}
	wantRevoked(t, n.State(), "k1")
	if tenant, ok := n.State().Tenant("acme"); !ok || !tenant.Suspended || string(tenant.DataKey) != "wrapped" {
		t.Errorf("tenant after the restart: %+v", tenant)
	}
	if e := propose(t, n, &command.BeginEpoch{Tenant: "acme", Node: "n1", PublicKey: make([]byte, 32)}); e != bulkhead.Epoch(2) {
		t.Errorf("second epoch = %v", e)
	}
}

func TestSnapshotTruncatesAndRestores(t *testing.T) {
	n := openNode(t, Config{Dir: t.TempDir()})
	propose(t, n, acme())
	propose(t, n, key("k1", 1))
	propose(t, n, &command.RevokeKey{ID: "k1"})
	if err := n.raft.ReloadConfig(raft.ReloadableConfig{
		TrailingLogs: 0, SnapshotInterval: time.Minute, SnapshotThreshold: 16384,
		HeartbeatTimeout: 50 * time.Millisecond, ElectionTimeout: 50 * time.Millisecond,
	}); err != nil {
		t.Fatal(err)
	}
	n.snapshot()
	var l raft.Log
	if err := n.disk.logs.GetLog(3, &l); err == nil {
		t.Fatal("the log before the snapshot is still there")
	}
	propose(t, n, &command.SetSuspended{Tenant: "acme", Suspended: true}) // the tail behind the snapshot
	n = reopen(t, n)
	wantRevoked(t, n.State(), "k1")
	if tenant, _ := n.State().Tenant("acme"); !tenant.Suspended {
		t.Error("the command behind the snapshot is lost")
	}
}

func TestFilesArePrivate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "raft")
	n := openNode(t, Config{Dir: dir})
	propose(t, n, acme())
	reopen(t, n)
	files := 0
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		files++
		if info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %o", path, info.Mode().Perm())
		}
		return nil
	})
	if err != nil || files < 6 {
		t.Errorf("walked %d files: %v", files, err)
	}
}

func TestOpenRefuses(t *testing.T) {
	t.Run("a directory in use", func(t *testing.T) {
		n := openNode(t, Config{Dir: t.TempDir()})
		wantOpenError(t, n.cfg, "another process uses it")
	})
	t.Run("another node's directory", func(t *testing.T) {
		n := openNode(t, Config{Dir: t.TempDir()})
		n.Close()
		n.cfg.NodeID = "n2"
		wantOpenError(t, n.cfg, `belongs to node "n1"`)
	})
	t.Run("a directory that lost its log", func(t *testing.T) {
		n := openNode(t, Config{Dir: t.TempDir()})
		n.Close()
		for _, sub := range []string{"wal", "snapshots"} {
			if err := os.RemoveAll(filepath.Join(n.cfg.Dir, sub)); err != nil {
				t.Fatal(err)
			}
		}
		wantOpenError(t, n.cfg, "has lost its log")
	})
	t.Run("no node id", func(t *testing.T) {
		wantOpenError(t, Config{Dir: t.TempDir(), FailStop: fatal(t)}, "node id")
	})
}

func wantOpenError(t *testing.T, cfg Config, text string) {
	t.Helper()
	n, err := Open(testContext(t), cfg)
	if err == nil {
		n.Close()
	}
	if err == nil || !strings.Contains(err.Error(), text) {
		t.Errorf("Open = %v, want an error with %q", err, text)
	}
}

func TestRefusalsAreValues(t *testing.T) {
	n := openNode(t, Config{Dir: t.TempDir()})
	_, err := n.Propose(testContext(t), key("k1", 1))
	var refusal *bulkhead.Error
	if !errors.As(err, &refusal) || refusal.Kind != bulkhead.NotFound {
		t.Errorf("key without a tenant: %v", err)
	}
	big := &command.BookReceipts{Tenant: "acme", Batch: make([]byte, command.MaxSize)}
	if _, err := n.Propose(testContext(t), big); !errors.As(err, &refusal) || refusal.Kind != bulkhead.TooLarge {
		t.Errorf("command above the bound: %v", err)
	}
	if err := n.Healthy(); err != nil {
		t.Errorf("after refusals: %v", err)
	}
}

// The apply goroutine is held so that the deadline passes while the command is
// on its way: the caller cannot know, and must be able to repeat.
func TestUnknownOutcomeRepeatedAppliesOnce(t *testing.T) {
	var hold atomic.Pointer[chan struct{}]
	n := openNode(t, Config{Dir: t.TempDir(), OnApply: func(*state.State) {
		if c := hold.Load(); c != nil {
			<-*c
		}
	}})
	propose(t, n, acme())
	release := make(chan struct{})
	hold.Store(&release)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	begin := &command.BeginEpoch{Tenant: "acme", Node: "n1", PublicKey: make([]byte, 32)}
	_, err := n.Propose(ctx, begin)
	var unknown *UnknownOutcomeError
	if !errors.As(err, &unknown) || !errors.Is(err, ErrUnknownOutcome) {
		t.Fatalf("Propose past its deadline = %v, want an unknown outcome", err)
	}
	hold.Store(nil)
	close(release)
	epoch, err := n.ProposeID(testContext(t), unknown.ID, begin)
	if err != nil || epoch != bulkhead.Epoch(1) {
		t.Errorf("repeated: epoch %v, %v; want 1", epoch, err)
	}
	if tenant, _ := n.State().Tenant("acme"); tenant.Epoch != 1 {
		t.Errorf("the tenant is in epoch %d: the command was applied twice", tenant.Epoch)
	}
	n = reopen(t, n) // and the answer survives a restart
	if epoch, err := n.ProposeID(testContext(t), unknown.ID, begin); err != nil || epoch != bulkhead.Epoch(1) {
		t.Errorf("repeated after a restart: epoch %v, %v; want 1", epoch, err)
	}
}

func TestOnApplyRunsBeforeProposeReturns(t *testing.T) {
	var seen atomic.Uint64
	n := openNode(t, Config{Dir: t.TempDir(), OnApply: func(st *state.State) { seen.Store(st.Index()) }})
	for i := range 20 {
		propose(t, n, &command.Apply{Upsert: []manifest.Object{{
			Ref: manifest.Ref{Kind: manifest.KindTenant, Name: "t" + string(rune('a'+i))}, TenantSpec: &manifest.Tenant{Owner: "o@x.example", CostCenter: "CC-1"},
		}}})
		if got := n.State().Index(); seen.Load() < got {
			t.Fatalf("OnApply saw index %d, the state is at %d", seen.Load(), got)
		}
	}
}

func TestChangedIsLevelTriggered(t *testing.T) {
	n := openNode(t, Config{Dir: t.TempDir()})
	other, stop := n.Watch()
	defer stop()
	propose(t, n, acme())
	propose(t, n, key("k1", 1))
	for name, c := range map[string]<-chan struct{}{"Changed": n.Changed(), "Watch": other} {
		select {
		case <-c:
		default:
			t.Errorf("%s: no token after two commands", name)
		}
		select {
		case <-c:
			t.Errorf("%s: two tokens", name)
		default:
		}
	}
}

func TestUnknownCommandStopsTheNode(t *testing.T) {
	stopped := make(chan error, 1)
	n := openNode(t, Config{Dir: t.TempDir(), FailStop: func(err error) { stopped <- err }})
	propose(t, n, acme())
	before := n.State().Index()
	f := n.raft.Apply([]byte{99, 1, 0, 0}, time.Minute)
	if err := f.Error(); err != nil {
		t.Fatal(err)
	}
	if err := <-stopped; err == nil {
		t.Error("stopped without a reason")
	}
	if err := n.Healthy(); !errors.Is(err, errStopped) {
		t.Errorf("Healthy = %v", err)
	}
	if _, err := n.Propose(testContext(t), key("k1", 1)); err == nil {
		t.Error("a stopped node took a command")
	}
	if got := n.State().Index(); got != before {
		t.Errorf("state moved from %d to %d", before, got)
	}
}

func TestCloseIsIdempotentAndFinal(t *testing.T) {
	n := openNode(t, Config{Dir: t.TempDir()})
	if err := errors.Join(n.Close(), n.Close()); err != nil {
		t.Fatal(err)
	}
	_, err := n.Propose(testContext(t), acme())
	var e *bulkhead.Error
	if !errors.As(err, &e) || e.Kind != bulkhead.Unavailable {
		t.Errorf("Propose on a closed node = %v, want unavailable", err)
	}
	if n.Healthy() == nil {
		t.Error("a closed node is healthy")
	}
}

func BenchmarkOpen(b *testing.B) {
	for _, name := range []string{"fresh", "existing"} {
		b.Run(name, func(b *testing.B) {
			dir := b.TempDir()
			for i := 0; b.Loop(); i++ {
				d := dir
				if name == "fresh" {
					d = filepath.Join(dir, string(rune('a'+i)))
				}
				n, err := Open(b.Context(), Config{NodeID: "n1", Dir: d, FailStop: func(err error) { b.Error(err) }})
				if err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				n.Close()
				b.StartTimer()
			}
		})
	}
}

func BenchmarkPropose(b *testing.B) {
	n, err := Open(b.Context(), Config{NodeID: "n1", Dir: b.TempDir(), FailStop: func(err error) { b.Error(err) }})
	if err != nil {
		b.Fatal(err)
	}
	defer n.Close()
	if _, err := n.Propose(b.Context(), acme()); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := n.Propose(b.Context(), &command.BeginEpoch{Tenant: "acme", Node: "n1", PublicKey: make([]byte, 32)}); err != nil {
			b.Fatal(err)
		}
	}
}
