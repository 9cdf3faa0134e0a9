package admintest

import (
	"crypto/rand"
	"path/filepath"
	"testing"
	"time"

	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/trail"
	"golang.org/x/mod/sumdb/note"
)

// NewAudited starts the API of a node that is alone, over a real recorder and a
// real copy of the audit trail. key verifies its checkpoints.
func NewAudited(t testing.TB) (f *Fixture, key string) {
	t.Helper()
	private, key, err := note.GenerateKey(rand.Reader, "test.example/audit")
	if err != nil {
		t.Fatal(err)
	}
	signer, err := note.NewSigner(private)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "audit")
	return Start(t, nil, nil, func(cfg *admin.Config) { keepTrail(t, cfg, dir, signer, key) }), key
}

// keepTrail follows the state as the daemon has it; the state here tells of no
// change, so it is looked at again and again.
func keepTrail(t testing.TB, cfg *admin.Config, dir string, signer note.Signer, key string) {
	t.Helper()
	changed := make(chan struct{})
	store, err := trail.OpenStore(trail.StoreConfig{
		Dir: dir, Node: cfg.Node, Cluster: "test.example", Signer: signer, Key: key,
		View:  func() trail.View { return cfg.Cluster.State().View() },
		Watch: func() (<-chan struct{}, func()) { return changed, func() {} },
	})
	if err != nil {
		t.Fatal(err)
	}
	recorder := trail.NewRecorder(trail.RecorderConfig{Node: cfg.Node, Proposer: cfg.Cluster, Keeper: store})
	done := make(chan struct{})
	go func() { defer close(done); store.Run(t.Context(), recorder) }()
	go func() {
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for range tick.C {
			select {
			case changed <- struct{}{}:
			case <-done:
				return
			}
		}
	}()
	t.Cleanup(func() { <-done; recorder.Close() })
	cfg.Trail, cfg.Audit = recorder, store
}
