package daemon

import (
	"bufio"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/worker/control"
	"github.com/bulkhead-ai/bulkhead/worker/internal/books/bookstest"
	"github.com/bulkhead-ai/bulkhead/worker/internal/lease"
	"github.com/bulkhead-ai/bulkhead/worker/receipt"
)

// TestLife: start, serve, book, apply a policy, answer a query, drain; and the
// next worker goes on where this one ended.
func TestLife(t *testing.T) {
	dir, ledger := t.TempDir(), bookstest.NewLedger(t)
	for life := range 2 {
		p := hire(t, dir, ledger)
		p.serve()
		for range 3 {
			p.mustAsk("one two three")
		}
		next := p.start.Policy
		next.Rev = 7
		p.send(control.TypePolicy, next)
		if a := decode[control.PolicyApplied](t, p.expect(control.TypePolicyApplied)); a.Rev != 7 {
			t.Errorf("applied %d", a.Rev)
		}
		if n := p.lines("?limit=100"); n != 3*(life+1) {
			t.Errorf("the logbook has %d lines, want %d", n, 3*(life+1))
		}
		p.send(control.TypeDrain, control.Drain{Timeout: 10 * time.Second})
		d := decode[control.Drained](t, p.expect(control.TypeDrained))
		p.ended(0)
		if len(p.receipts) != 3 || d.HeadSeq < ledger.Tenant().AppliedSeq {
			t.Errorf("%d receipts, drained at %d, the ledger at %d", len(p.receipts), d.HeadSeq, ledger.Tenant().AppliedSeq)
		}
	}
	if rows := ledger.Rows(); len(rows) != 1 || rows[0].Served != 6 || rows[0].InputTokens != 18 {
		t.Errorf("the ledger has %+v", rows)
	}
}

// lines counts what a log query answers.
func (p *post) lines(query string) int {
	p.t.Helper()
	resp, err := http.Get(p.logs + "/logs" + query)
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != 200 {
		p.t.Fatalf("query: status %d", resp.StatusCode)
	}
	n := 0
	for s := bufio.NewScanner(resp.Body); s.Scan(); n++ {
		if _, err := receipt.Parse(s.Bytes()); err != nil {
			p.t.Error(err)
		}
	}
	return n
}

func TestQueries(t *testing.T) {
	p := hire(t, t.TempDir(), bookstest.NewLedger(t))
	p.serve()
	p.mustAsk("a")
	now := time.Now().UTC()
	for query, want := range map[string]int{
		"": 1, "?project=app&env=prod&account=bot&key=key_bot&model=solo&outcome=served": 1, "?project=other": 0,
		"?from=" + now.Add(-time.Hour).Format(time.RFC3339): 1, "?to=" + now.Add(-time.Hour).Format(time.RFC3339): 0,
	} {
		if n := p.lines(query); n != want {
			t.Errorf("%s: %d lines, want %d", query, n, want)
		}
	}
	for _, query := range []string{"?limit=0", "?limit=x", "?limit=1000001", "?from=yesterday", "?to=1"} {
		resp, err := http.Get(p.logs + "/logs" + query)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != 400 {
			t.Errorf("%s: status %d", query, resp.StatusCode)
		}
	}
}

// TestUnexpectedMessages end the worker.
func TestUnexpectedMessages(t *testing.T) {
	type step struct {
		kind control.Type
		v    any
	}
	for name, c := range map[string]struct {
		serving bool
		step    step
	}{
		"no start":               {false, step{control.TypeDrain, control.Drain{}}},
		"start that is none":     {false, step{control.TypeStart, []int{1}}},
		"start with more fields": {false, step{control.TypeStart, map[string]any{"tenant": "acme", "extra": 1}}},
		"second serve":           {true, step{control.TypeServe, control.Serve{Epoch: 9}}},
		"second start":           {true, step{control.TypeStart, control.Start{}}},
		"own message":            {true, step{control.TypeHello, control.Hello{}}},
		"unknown type":           {true, step{control.Type(99), struct{}{}}},
		"ack of nothing sent":    {true, step{control.TypeAck, control.Ack{Seq: 1000}}},
		"policy that is none":    {true, step{control.TypePolicy, "x"}},
		"drain that is none":     {true, step{control.TypeDrain, "x"}},
	} {
		t.Run(name, func(t *testing.T) {
			p := hire(t, t.TempDir(), bookstest.NewLedger(t))
			if c.serving {
				p.serve()
			}
			p.send(c.step.kind, c.step.v)
			p.fatal("internal")
		})
	}
	for _, k := range []control.Type{control.TypePolicy, control.TypeAck} {
		p := hire(t, t.TempDir(), bookstest.NewLedger(t))
		p.send(control.TypeStart, p.start)
		p.expect(control.TypeHello)
		if k == control.TypePolicy {
			p.send(k, p.start.Policy)
		} else {
			p.send(k, control.Ack{Seq: 1})
		}
		p.fatal("internal")
	}
}

// TestReasons: what keeps a worker from serving has a name.
func TestReasons(t *testing.T) {
	t.Run("damaged journal", func(t *testing.T) {
		dir, ledger := t.TempDir(), bookstest.NewLedger(t)
		p := hire(t, dir, ledger)
		p.serve()
		p.mustAsk("a")
		p.send(control.TypeDrain, control.Drain{Timeout: time.Second})
		p.expect(control.TypeDrained)
		p.ended(0)
		segments, err := filepath.Glob(filepath.Join(dir, "journal", "*.seg"))
		if err != nil || len(segments) == 0 {
			t.Fatal("no segments", err)
		}
		raw, err := os.ReadFile(segments[0])
		if err != nil {
			t.Fatal(err)
		}
		raw[600] ^= 1
		if err := os.WriteFile(segments[0], raw, 0o600); err != nil {
			t.Fatal(err)
		}
		p = hire(t, dir, ledger)
		p.told()
		p.fatal("log_damaged")
	})
	t.Run("lost journal", func(t *testing.T) {
		p := hire(t, t.TempDir(), bookstest.NewLedger(t))
		p.send(control.TypeStart, p.start)
		p.public = decode[control.Hello](t, p.expect(control.TypeHello)).PublicKey
		serve := p.ledger.BeginWith(p.public)
		serve.AppliedSeq = 5
		p.send(control.TypeServe, serve)
		p.fatal("log_damaged")
	})
	t.Run("full disk", func(t *testing.T) {
		p := hire(t, t.TempDir(), bookstest.NewLedger(t))
		p.disk.Fill(true)
		p.start.Tuning.MinFreeBytes = 1
		p.told()
		p.fatal("low_disk")
	})
	t.Run("missing layer", func(t *testing.T) {
		ours := pair(t, unix.SOCK_STREAM)
		defer ours.ours.Close()
		conn := control.NewConn(stream(t, ours.theirs))
		defer conn.Close()
		w := &worker{control: control.NewConn(stream(t, ours.ours)), page: func() (*lease.Page, error) { return nil, nil }, confine: func(control.Sandbox) ([]control.Layer, error) {
			return nil, errors.New("no landlock")
		}}
		defer w.control.Close()
		if err := conn.Send(control.TypeStart, control.Start{Tenant: "acme"}); err != nil {
			t.Fatal(err)
		}
		if code := w.run(); code != 1 {
			t.Errorf("exit code %d", code)
		}
		_, raw, err := conn.Receive()
		if f := decode[control.Fatal](t, raw); err != nil || f.Reason != "missing_layer" {
			t.Errorf("%+v, %v", f, err)
		}
	})
}

// TestSupervisorGone: what runs may finish, and everything is on the books.
func TestSupervisorGone(t *testing.T) {
	dir, ledger := t.TempDir(), bookstest.NewLedger(t)
	p := hire(t, dir, ledger)
	p.serve()
	resp := p.begin("one two three [[echo delay=50ms]]")
	p.conn.Close()
	if rest, err := io.ReadAll(resp.Body); err != nil || !strings.HasSuffix(string(rest), "[DONE]\n\n") {
		t.Errorf("a request that ran: %q, %v", rest, err)
	}
	p.ended(0)
	next := hire(t, dir, ledger)
	next.serve()
	next.send(control.TypeDrain, control.Drain{Timeout: time.Second})
	next.expect(control.TypeDrained)
	next.ended(0)
	if len(next.receipts) != 1 || next.receipts[0].Outcome != bulkhead.Served {
		t.Errorf("receipts %+v", next.receipts)
	}
}

// TestDrainCutsWhatDoesNotEnd: at the deadline running requests are cut, and
// their receipts are among the last.
func TestDrainCutsWhatDoesNotEnd(t *testing.T) {
	ledger := bookstest.NewLedger(t)
	p := hire(t, t.TempDir(), ledger)
	p.serve()
	const n = 5
	var running []*http.Response
	for range n {
		running = append(running, p.begin("one two three [[echo hang=2]]"))
	}
	p.send(control.TypeDrain, control.Drain{Timeout: 20 * time.Millisecond})
	p.expect(control.TypeDrained)
	p.ended(0)
	for _, r := range running {
		if rest, err := io.ReadAll(r.Body); err == nil {
			t.Errorf("a request that hung ended with %q", rest)
		}
	}
	if len(p.receipts) != n {
		t.Fatalf("%d receipts, want %d", len(p.receipts), n)
	}
	for _, r := range p.receipts {
		if !r.Final || r.Outcome != bulkhead.Cancelled || r.Unknown || r.Usage.OutputTokens() != 2 {
			t.Errorf("receipt %+v", r)
		}
	}
}

// TestBrokenJournalEndsTheWorker: no log, no service, and no zombie either.
func TestBrokenJournalEndsTheWorker(t *testing.T) {
	p := hire(t, t.TempDir(), bookstest.NewLedger(t))
	p.serve()
	p.mustAsk("a")
	p.disk.Fail()
	if status, body := p.ask("b"); status != 503 {
		t.Errorf("served without a log: %d %s", status, body)
	}
	p.fatal("journal_poisoned")
}

func TestRunning(t *testing.T) {
	var r running
	r.wait(time.Hour) // nobody: at once
	r.add(1)
	r.wait(time.Millisecond) // somebody who stays: not for ever
	r.add(1)
	waited := make(chan struct{})
	go func() { r.wait(time.Hour); close(waited) }()
	r.add(-1)
	select {
	case <-waited:
		t.Error("did not wait for the second")
	case <-time.After(10 * time.Millisecond): // not a synchronisation: it would come at once
	}
	r.add(-1)
	<-waited
}
