package billing

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"github.com/bulkhead-ai/bulkhead/cluster/state"
	"github.com/bulkhead-ai/bulkhead/configs/manifest"
	"github.com/bulkhead-ai/bulkhead/worker/receipt"
)

// oneNode is the real state machine without Raft below it. before may fail a
// proposal before it is applied, after may lose its answer.
type oneNode struct {
	mu            sync.Mutex
	index         uint64
	st            *state.State
	proposals     int
	before, after func(n int) error
}

func (c *oneNode) State() *state.State { return c.st }

func (c *oneNode) Propose(_ context.Context, cmd command.Command) (any, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.proposals++
	if c.before != nil {
		if err := c.before(c.proposals); err != nil {
			return nil, err
		}
	}
	c.index++
	raw, err := command.Encode(cmd, fmt.Sprintf("c%d", c.index), time.Now())
	if err != nil {
		return nil, err
	}
	env, err := command.Decode(raw)
	if err != nil {
		return nil, err
	}
	result, err := c.st.Apply(c.index, env)
	if c.after != nil && err == nil {
		if lost := c.after(c.proposals); lost != nil {
			return nil, lost
		}
	}
	return result, err
}

// signer is a tenant's worker as far as receipts go.
type signer struct {
	tenant bulkhead.TenantID
	epoch  bulkhead.Epoch
	key    ed25519.PrivateKey
	seq    uint64
	tree   receipt.Frontier
}

func newCluster(t *testing.T, tenants ...bulkhead.TenantID) *oneNode {
	t.Helper()
	c := &oneNode{st: state.New()}
	var objects []manifest.Object
	for _, id := range tenants {
		objects = append(objects, manifest.Object{
			Ref: manifest.Ref{Kind: manifest.KindTenant, Name: string(id)}, TenantSpec: &manifest.Tenant{Owner: "o@bank.example", CostCenter: "CC-1"},
		})
	}
	c.must(t, &command.Apply{Upsert: objects})
	return c
}

func (c *oneNode) must(t *testing.T, cmd command.Command) any {
	t.Helper()
	result, err := c.Propose(t.Context(), cmd)
	if err != nil {
		t.Fatal(err)
	}
	return result
}

func (c *oneNode) begin(t *testing.T, tenant bulkhead.TenantID) *signer {
	t.Helper()
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	epoch := c.must(t, &command.BeginEpoch{Tenant: tenant, Node: "n1", PublicKey: public}).(bulkhead.Epoch)
	return &signer{tenant: tenant, epoch: epoch, key: private}
}

// batch signs receipts that edit made of a plain one.
func (s *signer) batch(t *testing.T, edits ...func(*receipt.Receipt)) []byte {
	t.Helper()
	b := receipt.Batch{Tenant: s.tenant, Epoch: s.epoch, From: s.seq + 1}
	for _, edit := range edits {
		s.seq++
		r := receipt.Receipt{
			Tenant: s.tenant, Seq: s.seq, Epoch: s.epoch, Request: bulkhead.NewRequestID(time.Now()), Attempt: 1, Final: true,
			Outcome: bulkhead.Served, Status: 200, Day: "2026-03-01", Endpoint: "chat/completions", Model: "fast",
			Usage: bulkhead.Usage{Input: 10, Output: 5}, Cost: 1_500_000_000, Currency: "USD", Salt: strings.Repeat("0a", 16),
		}
		edit(&r)
		line := r.AppendJSON(nil)
		s.tree.Append(receipt.LeafHash(line))
		b.Leaves = append(b.Leaves, line)
	}
	b.To, b.TreeSize, b.Root = s.seq, s.tree.Size(), s.tree.Root()
	raw, err := receipt.SealBatch(&b, s.key)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func plain(*receipt.Receipt) {}

func total(t *testing.T, l *Ledger) Row {
	t.Helper()
	rows, err := l.Report(Query{})
	if err != nil {
		t.Fatal(err)
	}
	if len(rows) == 0 {
		return Row{}
	}
	return rows[0]
}

func TestBookIsExactlyOnce(t *testing.T) {
	c := newCluster(t, "acme")
	l, w := NewLedger(c), c.begin(t, "acme")
	first, second := w.batch(t, plain, plain), w.batch(t, plain)
	for i, step := range []struct {
		raw  []byte
		want uint64
	}{{first, 2}, {first, 2}, {second, 3}, {first, 3}, {second, 3}} {
		if seq, err := l.Book(t.Context(), "acme", step.raw); err != nil || seq != step.want {
			t.Fatalf("step %d: booked up to %d, %v", i, seq, err)
		}
	}
	if sum := total(t, l); sum.Requests != 3 || sum.InputTokens != 30 || sum.Cost.String() != "0.0045" {
		t.Fatalf("ledger %+v", sum)
	}
}

func TestLostAnswersAreRepeated(t *testing.T) {
	trouble := bulkhead.E(bulkhead.Unavailable, "no_leader", "no leader")
	lost := errors.New("unknown whether the command was applied")
	for name, set := range map[string]func(c *oneNode, until int){
		"not applied": func(c *oneNode, until int) { c.before = failing(until, trouble) },
		"applied":     func(c *oneNode, until int) { c.after = failing(until, lost) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t, "acme")
				l, w := NewLedger(c), c.begin(t, "acme")
				set(c, c.proposals+5)
				if seq, err := l.Book(t.Context(), "acme", w.batch(t, plain)); err != nil || seq != 1 {
					t.Fatalf("booked up to %d, %v", seq, err)
				}
				if sum := total(t, l); sum.Requests != 1 {
					t.Fatalf("ledger %+v", sum)
				}
			})
		})
	}
}

func failing(until int, err error) func(int) error {
	return func(n int) error {
		if n <= until {
			return err
		}
		return nil
	}
}

func TestBookEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "acme")
		l, w := NewLedger(c), c.begin(t, "acme")
		c.before = func(int) error { return bulkhead.E(bulkhead.Unavailable, "no_leader", "no leader") }
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err := l.Book(ctx, "acme", w.batch(t, plain))
		if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ErrRefused) {
			t.Fatalf("got %v", err)
		}
	})
}

func TestForgedBatchesAreRefused(t *testing.T) {
	c := newCluster(t, "acme", "globex")
	l := NewLedger(c)
	w, other := c.begin(t, "acme"), c.begin(t, "globex")
	good := w.batch(t, plain)
	flipped := bytes.Clone(good)
	flipped[len(flipped)-2] ^= 1
	stranger := *w
	_, stranger.key, _ = ed25519.GenerateKey(nil)
	skipped := *w
	skipped.seq += 5
	for name, raw := range map[string][]byte{
		"nothing":          nil,
		"rubbish":          []byte("BHR1 and so on"),
		"changed":          flipped,
		"another key":      stranger.batch(t, plain),
		"another tenant's": other.batch(t, plain),
		"gap":              skipped.batch(t, plain),
		"too large":        make([]byte, receipt.MaxBatch+1),
	} {
		before := c.proposals
		if _, err := l.Book(t.Context(), "acme", raw); !errors.Is(err, ErrRefused) {
			t.Errorf("%s: got %v, want ErrRefused", name, err)
		}
		if c.proposals != before {
			t.Errorf("%s: cost a place in the log", name)
		}
	}
	if _, err := l.Book(t.Context(), "nobody", good); !errors.Is(err, ErrRefused) {
		t.Errorf("no tenant: %v", err)
	}
	foreign := w.batch(t, func(r *receipt.Receipt) { r.Key, r.Project, r.Env = "k-of-globex", "p", "prod" })
	if _, err := l.Book(t.Context(), "acme", good); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Book(t.Context(), "acme", foreign); !errors.Is(err, ErrRefused) { // only the state machine can tell
		t.Errorf("another tenant's key: %v", err)
	}
	c.begin(t, "acme")
	if _, err := l.Book(t.Context(), "acme", good); !errors.Is(err, ErrRefused) {
		t.Errorf("old epoch: %v", err)
	}
	if sum := total(t, l); sum.Requests != 1 {
		t.Fatalf("ledger %+v", sum)
	}
}

func TestReport(t *testing.T) {
	c := newCluster(t, "acme", "globex")
	l := NewLedger(c)
	acme, globex := c.begin(t, "acme"), c.begin(t, "globex")
	book := func(w *signer, raw []byte) {
		t.Helper()
		if _, err := l.Book(t.Context(), w.tenant, raw); err != nil {
			t.Fatal(err)
		}
	}
	book(acme, acme.batch(t, plain,
		func(r *receipt.Receipt) { r.Day, r.Outcome = "2026-03-02", bulkhead.Cancelled },
		func(r *receipt.Receipt) { r.Model, r.Currency, r.Cost, r.Unpriced = "free", "", 0, true },
		func(r *receipt.Receipt) {
			r.Final, r.Outcome, r.Unknown, r.Cost, r.UpperBound = false, bulkhead.Failed, true, 0, 7
		},
	))
	book(globex, globex.batch(t, plain, func(r *receipt.Receipt) { r.Currency = "EUR" },
		func(r *receipt.Receipt) {
			r.Outcome, r.Cost, r.Usage, r.Currency = bulkhead.RefusedLimit, 0, bulkhead.Usage{}, "USD"
		}))

	const tail = `,"unpriced":%d,"unknown":%d,"unknown_cost":"%s"}`
	for _, c := range []struct {
		name string
		q    Query
		want []string
	}{
		{"by tenant", Query{By: []string{"tenant"}}, []string{
			`{"tenant":"acme","requests":3,"served":2,"failed":0,"timed_out":0,"cancelled":1,"refused_limit":0,"refused_policy":0,"refused_auth":0,"input_tokens":40,"output_tokens":20,"cost":"0.003","currency":"USD"` + fmt.Sprintf(tail, 1, 1, "0.000000000007"),
			`{"tenant":"globex","requests":1,"served":1,"failed":0,"timed_out":0,"cancelled":0,"refused_limit":0,"refused_policy":0,"refused_auth":0,"input_tokens":10,"output_tokens":5,"cost":"0.0015","currency":"EUR"` + fmt.Sprintf(tail, 0, 0, "0.00"),
			`{"tenant":"globex","requests":2,"served":1,"failed":0,"timed_out":0,"cancelled":0,"refused_limit":1,"refused_policy":0,"refused_auth":0,"input_tokens":10,"output_tokens":5,"cost":"0.0015","currency":"USD"` + fmt.Sprintf(tail, 0, 0, "0.00"),
		}},
		{"one day", Query{By: []string{"day", "model"}, Tenant: "acme", From: "2026-03-02", To: "2026-03-02"}, []string{
			`{"day":"2026-03-02","model":"fast","requests":1,"served":0,"failed":0,"timed_out":0,"cancelled":1,"refused_limit":0,"refused_policy":0,"refused_auth":0,"input_tokens":10,"output_tokens":5,"cost":"0.0015","currency":"USD"` + fmt.Sprintf(tail, 0, 0, "0.00"),
		}},
		{"within one", Query{By: []string{"tenant", "day"}, Within: []bulkhead.TenantID{"acme"}, From: "2026-03-02"}, []string{
			`{"tenant":"acme","day":"2026-03-02","requests":1,"served":0,"failed":0,"timed_out":0,"cancelled":1,"refused_limit":0,"refused_policy":0,"refused_auth":0,"input_tokens":10,"output_tokens":5,"cost":"0.0015","currency":"USD"` + fmt.Sprintf(tail, 0, 0, "0.00"),
		}},
		{"within none", Query{By: []string{"tenant"}, Within: []bulkhead.TenantID{}}, []string{}},
		{"asked for one and within another", Query{By: []string{"tenant"}, Tenant: "globex", Within: []bulkhead.TenantID{"acme"}}, []string{}},
		{"nothing", Query{By: []string{"tenant"}, To: "2026-02-28"}, []string{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			rows, err := l.Report(c.q)
			if err != nil {
				t.Fatal(err)
			}
			got := []string{}
			for _, r := range rows {
				b, err := json.Marshal(r)
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, string(b))
				if len(r.Cells()) != len(r.Columns()) {
					t.Errorf("%d cells in %d columns", len(r.Cells()), len(r.Columns()))
				}
			}
			if strings.Join(got, "\n") != strings.Join(c.want, "\n") {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(c.want, "\n"))
			}
		})
	}
}

func TestReportRefuses(t *testing.T) {
	l := NewLedger(newCluster(t, "acme"))
	for _, q := range []Query{
		{By: []string{"color"}}, {By: []string{"day", "day"}}, {By: []string{""}}, {From: "yesterday"}, {To: "2026-02-30"}, {Tenant: "A b"},
	} {
		_, err := l.Report(q)
		if e := bulkhead.AsError(err); e.Kind != bulkhead.InvalidRequest || e.Param == "" {
			t.Errorf("%+v: got %v", q, err)
		}
	}
	if rows, err := l.Report(Query{By: Names()}); err != nil || len(rows) != 0 {
		t.Errorf("got %v, %v", rows, err)
	}
}
