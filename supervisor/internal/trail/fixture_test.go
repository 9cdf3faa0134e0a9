package trail

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bulkhead-ai/bulkhead/cluster/audit"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"github.com/bulkhead-ai/bulkhead/cluster/state"
	"golang.org/x/mod/sumdb/note"
)

// fakeCluster is the real state machine without Raft.
type fakeCluster struct {
	mu    sync.Mutex
	state *state.State
	index uint64
	now   time.Time
	watch []chan struct{}

	forgotten uint64
}

func newCluster() *fakeCluster {
	return &fakeCluster{state: state.New(), now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
}

func (c *fakeCluster) View() View {
	c.mu.Lock()
	defer c.mu.Unlock()
	return forgetful{c.state.View(), c.forgotten}
}

// forget makes the state forget every line so far; the real one does after 4096.
func (c *fakeCluster) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.forgotten = c.state.View().AuditCount()
}

// forgetful has no lines up to forgotten.
type forgetful struct {
	*state.View
	forgotten uint64
}

func (f forgetful) AuditSince(n uint64, fn func(state.AuditLine) bool) bool {
	whole := f.View.AuditSince(max(n, f.forgotten), fn)
	return whole && n >= f.forgotten
}

func (c *fakeCluster) ProposeID(_ context.Context, id string, cmd command.Command) (any, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	raw, err := command.Encode(cmd, id, c.now)
	if err != nil {
		return nil, err
	}
	env, err := command.Decode(raw)
	if err != nil {
		return nil, err
	}
	c.index++
	c.now = c.now.Add(time.Millisecond)
	result, err := c.state.Apply(c.index, env)
	for _, w := range c.watch {
		select {
		case w <- struct{}{}:
		default:
		}
	}
	return result, err
}

func (c *fakeCluster) Watch() (<-chan struct{}, func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	w := make(chan struct{}, 1)
	c.watch = append(c.watch, w)
	return w, func() {}
}

// proposed counts the commands so far.
func (c *fakeCluster) proposed() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.index
}

// put writes n events to a log, 256 a command.
func (c *fakeCluster) put(t testing.TB, log string, n int) {
	t.Helper()
	for n > 0 {
		k := min(n, command.MaxAuditEntries)
		cmd := &command.AppendAudit{}
		for range k {
			cmd.Entries = append(cmd.Entries, command.AuditEntry{Log: log, Event: event("create-key")})
		}
		if _, err := c.ProposeID(t.Context(), "put-"+rand.Text(), cmd); err != nil {
			t.Fatal(err)
		}
		n -= k
	}
}

func event(action string) audit.Event {
	return audit.Event{
		Op: "op-1", Phase: audit.Single, Action: action, Actor: audit.Actor{Subject: "ada", Method: "oidc", Address: "192.0.2.7"},
		Object: "Tenant acme", Result: audit.Done, Node: "n1", Request: "req_1",
	}
}

// signing is a signer with its verifier key.
func signing(t testing.TB) (note.Signer, string) {
	t.Helper()
	private, public, err := note.GenerateKey(rand.Reader, "test.example/audit")
	if err != nil {
		t.Fatal(err)
	}
	s, err := note.NewSigner(private)
	if err != nil {
		t.Fatal(err)
	}
	return s, public
}

// place is a node's store in a folder, over a cluster.
type place struct {
	cluster *fakeCluster
	dir     string
	signer  note.Signer
	key     string
	peers   Peers
	segment int64
}

func newPlace(t testing.TB, c *fakeCluster) *place {
	t.Helper()
	s, key := signing(t)
	return &place{cluster: c, dir: filepath.Join(t.TempDir(), "audit"), signer: s, key: key, segment: 2 << 10}
}

// beside is another node of the same cluster.
func (p *place) beside(t testing.TB) *place {
	t.Helper()
	other := *p
	other.dir = filepath.Join(t.TempDir(), "audit")
	return &other
}

func (p *place) open(t testing.TB) *Store {
	t.Helper()
	s, err := OpenStore(StoreConfig{
		Dir: p.dir, View: p.cluster.View, Watch: p.cluster.Watch, Peers: p.peers, Node: "n1",
		Cluster: "test.example", Signer: p.signer, Key: p.key, SegmentBytes: p.segment,
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Ready(); err != nil {
		t.Fatal(err)
	}
	return s
}

// anchor has every log signed, and the checkpoints kept.
func (p *place) anchor(t testing.TB, s *Store) {
	t.Helper()
	a, err := NewAnchors(AnchorsConfig{Cluster: "test.example", Signer: p.signer, Proposer: p.cluster, View: p.cluster.View})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.anchor(t.Context(), p.cluster.View().AuditLogs()); err != nil {
		t.Fatal(err)
	}
	s.keepCheckpoints()
}

func (p *place) file(log, name string) string { return filepath.Join(p.dir, folderOf(log), name) }

// segments are the paths of a log's segments.
func (p *place) segments(t testing.TB, log string) []string {
	t.Helper()
	firsts, err := listSegments(filepath.Join(p.dir, folderOf(log)))
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, f := range firsts {
		out = append(out, p.file(log, segmentName(f)))
	}
	return out
}

// aside are the files of a log that were set aside.
func (p *place) aside(t testing.TB, log string) []string {
	t.Helper()
	out, err := filepath.Glob(p.file(log, asidePrefix+"*"))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func verify(t testing.TB, s *Store, log string) LogReport {
	t.Helper()
	var out []LogReport
	if err := s.Verify(t.Context(), log, func(r LogReport) error { out = append(out, r); return nil }); err != nil {
		t.Fatal(err)
	}
	if len(out) != 1 {
		t.Fatalf("%d reports of %s: %+v", len(out), log, out)
	}
	return out[0]
}

// mustHold fails the test unless all of the log holds.
func mustHold(t testing.TB, s *Store, log string, records uint64) LogReport {
	t.Helper()
	r := verify(t, s, log)
	if !r.OK || r.Records != records || len(r.Findings) > 0 || r.Root == "" {
		t.Fatalf("want %d records that hold, got %+v", records, r)
	}
	return r
}

// told collects events.
type told struct {
	mu     sync.Mutex
	events []audit.Event
	err    error
}

func (d *told) Record(_ context.Context, _ string, e audit.Event) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.err != nil {
		return d.err
	}
	d.events = append(d.events, e)
	return nil
}

func (d *told) all() []audit.Event {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.events)
}

func (d *told) count() int { return len(d.all()) }

func (d *told) actions() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []string
	for _, e := range d.events {
		out = append(out, e.Action)
	}
	return strings.Join(out, " ")
}

func edit(t testing.TB, path string, change func([]byte) []byte) {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, change(raw), 0o600); err != nil {
		t.Fatal(err)
	}
}

// otherVerifier is the verifier of a key that signed nothing here.
func otherVerifier(t testing.TB) note.Verifier {
	t.Helper()
	public, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key, err := note.NewEd25519VerifierKey("test.example/audit", public)
	if err != nil {
		t.Fatal(err)
	}
	v, err := note.NewVerifier(key)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func verifier(t testing.TB, key string) note.Verifier {
	t.Helper()
	v, err := note.NewVerifier(key)
	if err != nil {
		t.Fatal(err)
	}
	return v
}
