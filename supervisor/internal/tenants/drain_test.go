package tenants

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/bulkhead-ai/bulkhead/cluster/command"
)

// TestDrainBooksWhatWasLeft: also for a tenant that an operator had suspended, and
// whose worker died.
func TestDrainBooksWhatWasLeft(t *testing.T) {
	n := newNode(t, Config{})
	n.acquire().Release()
	n.until(Serving)
	if err := n.Drain(t.Context(), "acme"); err != nil {
		t.Fatal(err)
	}
	if n.until(Hibernating); n.unbooked() {
		t.Fatal("drained with unbooked receipts")
	}
	note := filepath.Join(n.dir, "tenants", "acme", unbookedName) // as a process leaves it that was killed
	if err := os.WriteFile(note, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	n.propose(&command.SetSuspended{Tenant: "acme", Suspended: true})
	n.Sync()
	n.until(Suspended)
	if err := n.Drain(t.Context(), "acme"); err == nil {
		t.Fatal("drained though no worker may start")
	}
	n.propose(&command.BeginErasure{ID: "era_1", Tenant: "acme", Reason: "x", By: "y", NotBefore: time.Now().Add(time.Hour).UnixMilli()})
	n.Sync()
	if err := n.Drain(t.Context(), "acme"); err != nil {
		t.Fatal(err)
	}
	if st := n.until(Hibernating); n.unbooked() || st.Counts.Starts != 2 {
		t.Fatalf("after the drain: %+v, unbooked %v", st, n.unbooked())
	}
	if err := n.Drain(t.Context(), "nobody"); err != nil {
		t.Errorf("a tenant that is gone: %v", err)
	}
}
