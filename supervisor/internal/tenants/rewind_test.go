package tenants

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
)

// backup answers what puts the state back to what it is now.
func (n *node) backup() (restore func()) {
	n.Helper()
	var file bytes.Buffer
	if _, err := n.cluster.st.View().WriteTo(&file); err != nil {
		n.Fatal(err)
	}
	return func() {
		n.Helper()
		n.cluster.mu.Lock()
		defer n.cluster.mu.Unlock()
		if err := n.cluster.st.Restore(bytes.NewReader(file.Bytes())); err != nil {
			n.Fatal(err)
		}
	}
}

// TestEpochBehindTheCopies: copies that promised more than the state knows are
// overtaken, each with one more epoch.
func TestEpochBehindTheCopies(t *testing.T) {
	c := newCopies()
	promised := []bulkhead.Epoch{41, 44, 44}
	c.vowed = func() bulkhead.Epoch {
		p := promised[0]
		promised = promised[min(1, len(promised)-1):]
		return p
	}
	n := clustered(t, c)
	if l := n.acquire(); l.Epoch() != 45 {
		t.Errorf("serves in epoch %d", l.Epoch())
	}
	if got, want := c.seen()[:3], []string{"take over acme 1", "take over acme 42", "take over acme 45"}; !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}

// TestEpochThatNeverSuffices: a copy that always knows a newer epoch does not
// keep a start going for ever.
func TestEpochThatNeverSuffices(t *testing.T) {
	c := newCopies()
	last := bulkhead.Epoch(100)
	c.vowed = func() bulkhead.Epoch { last += 10; return last }
	n := clustered(t, c)
	n.until(Hibernating)
	r, err := n.resident("acme")
	if err != nil {
		t.Fatal(err)
	}
	r.life.wake()
	if s := n.until(BackingOff); !strings.Contains(s.LastError, "is promised") {
		t.Errorf("says %q", s.LastError)
	}
	if tries := len(c.seen()); tries != maxEpochs {
		t.Errorf("%d epochs were begun", tries)
	}
}

// TestRestoredState: what runs when the state is put back to an older one is
// replaced, with a newer epoch than any before, and what only sleeps is woken,
// since the ledger is behind its journal.
func TestRestoredState(t *testing.T) {
	for _, alone := range []bool{true, false} {
		var n *node
		if alone {
			n = newNode(t, Config{})
		} else {
			n = clustered(t, newCopies())
		}
		restore := n.backup()
		l := n.acquire()
		n.spawner.last().Kill()
		n.ended(l)
		n.crashed(1)
		l = n.acquire()
		if l.Epoch() != 2 {
			t.Fatalf("epoch %d", l.Epoch())
		}
		restore()
		n.propose(&command.SetSuspended{Tenant: "acme"}) // the index passes where it was
		n.propose(&command.SetSuspended{Tenant: "acme"})
		n.Sync()
		n.ended(l)
		if s := n.until(Serving); s.Epoch != 3 {
			t.Errorf("alone %t: goes on in epoch %d", alone, s.Epoch)
		}
	}
}

// TestRestoredStateOfSleepers: a tenant without a process is started, and the note
// that makes the next start of the node do it is there first.
func TestRestoredStateOfSleepers(t *testing.T) {
	n := newNode(t, Config{})
	restore := n.backup()
	n.acquire().Release()
	n.propose(&command.SetSuspended{Tenant: "acme", Suspended: true})
	n.Sync()
	n.until(Suspended)
	if n.unbooked() {
		t.Fatal("not all was booked")
	}
	restore()
	n.Sync()
	n.until(Serving)
	if !n.unbooked() {
		t.Error("no note")
	}
}

// TestOnlyOlderStatesRewind: a snapshot that a follower is sent because it lags is
// not a restore.
func TestOnlyOlderStatesRewind(t *testing.T) {
	n := newNode(t, Config{})
	l := n.acquire()
	n.backup()() // of the same index
	n.Sync()
	select {
	case <-l.Done():
		t.Error("the worker was replaced")
	default:
	}
	if n.cluster.st.View().Rewound() != 0 {
		t.Error("counts as an older state")
	}
}
