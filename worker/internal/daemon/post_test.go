package daemon

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/worker/control"
	"github.com/bulkhead-ai/bulkhead/worker/internal/books/bookstest"
	"github.com/bulkhead-ai/bulkhead/worker/internal/lease"
	"github.com/bulkhead-ai/bulkhead/worker/receipt"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// post is the supervisor's side of a worker that runs in this process, without
// its sandbox.
type post struct {
	t        *testing.T
	conn     *control.Conn
	disk     *bookstest.Disk
	ledger   *bookstest.Ledger
	public   ed25519.PublicKey
	receipts []receipt.Receipt
	url      string // of the request socket
	logs     string // of the query socket
	start    control.Start
	exit     chan int
	replica  io.ReadWriteCloser // the worker's end of the replication socket
}

type socketpair struct{ ours, theirs *os.File }

func pair(t *testing.T, kind int) socketpair {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return socketpair{os.NewFile(uintptr(fds[0]), "ours"), os.NewFile(uintptr(fds[1]), "theirs")}
}

func stream(t *testing.T, f *os.File) net.Conn {
	t.Helper()
	c, err := net.FileConn(f)
	f.Close()
	if err == nil {
		err = c.SetDeadline(time.Now().Add(2 * time.Minute)) // a message that never comes fails the test
	}
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// hire starts a worker on the directory. echo answers for it.
func hire(t *testing.T, dir string, l *bookstest.Ledger) *post {
	t.Helper()
	p := &post{t: t, disk: bookstest.NewDisk(), ledger: l, exit: make(chan int, 1)}
	ctl, brk := pair(t, unix.SOCK_STREAM), pair(t, unix.SOCK_SEQPACKET)
	p.conn = control.NewConn(stream(t, ctl.ours))
	requests, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	queries, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p.url, p.logs = "http://"+requests.Addr().String(), "http://"+queries.Addr().String()
	theirs := control.NewConn(stream(t, ctl.theirs))
	taken := false
	w := &worker{
		control: theirs,
		confine: func(control.Sandbox) ([]control.Layer, error) { return []control.Layer{{Name: "none"}}, nil },
		sockets: func() (sockets, error) {
			taken = true
			conn, err := control.FileBrokerConn(brk.theirs)
			return sockets{requests: requests, queries: queries, broker: conn}, err
		},
		copies: func() (io.ReadWriteCloser, error) { return p.replica, nil },
		page:   func() (*lease.Page, error) { return nil, nil },
		disk:   p.disk,
	}
	policy := bookstest.Policy(nil)
	for i := range policy.Providers {
		policy.Providers[i].Adapter = "echo"
		policy.Providers[i].Options = map[string]string{"directives": "true"}
	}
	p.start = control.Start{
		Tenant: bookstest.Tenant, DataKey: make([]byte, 32), Sandbox: control.Sandbox{DataDir: dir}, Policy: *policy,
		Tuning: control.Tuning{MinFreeBytes: -1, ReceiptInterval: 5 * time.Millisecond, LogLevel: "fatal"},
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		p.exit <- w.run()
		theirs.Close()
	}()
	t.Cleanup(func() {
		p.conn.Close()
		select {
		case <-ended:
		case <-time.After(30 * time.Second):
			t.Error("the worker does not end")
			return
		}
		requests.Close()
		queries.Close()
		brk.ours.Close()
		if !taken {
			brk.theirs.Close()
		}
		http.DefaultClient.CloseIdleConnections()
	})
	return p
}

func (p *post) send(k control.Type, v any) {
	p.t.Helper()
	if err := p.conn.Send(k, v); err != nil {
		p.t.Fatal(err)
	}
}

// expect reads until a message of the kind comes. Receipts on the way are
// booked and acknowledged, as a supervisor does.
func (p *post) expect(want control.Type) []byte {
	p.t.Helper()
	for {
		k, raw, err := p.conn.Receive()
		if err != nil {
			p.t.Fatalf("waiting for message %d: %v", want, err)
		}
		if k == control.TypeReceipts {
			b, err := receipt.OpenBatch(raw, p.public)
			if err != nil {
				p.t.Fatal(err)
			}
			p.receipts = append(p.receipts, b.Receipts...)
			// A worker that drains may be gone already: Serve tells the next one.
			_ = p.conn.Send(control.TypeAck, control.Ack{Seq: p.ledger.Book(raw)})
		}
		if k == want {
			return raw
		}
		if k != control.TypeReceipts {
			p.t.Fatalf("message %d %s, want %d", k, raw, want)
		}
	}
}

func decode[T any](t *testing.T, raw []byte) T {
	t.Helper()
	v, err := control.Decode[T](raw)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// told goes through the messages up to Serve.
func (p *post) told() control.Serve {
	p.t.Helper()
	p.send(control.TypeStart, p.start)
	p.public = decode[control.Hello](p.t, p.expect(control.TypeHello)).PublicKey
	serve := p.ledger.BeginWith(p.public)
	serve.Replicated = p.replica != nil
	p.send(control.TypeServe, serve)
	return serve
}

// serve goes through the messages up to Ready.
func (p *post) serve() {
	p.t.Helper()
	serve := p.told()
	if r := decode[control.Ready](p.t, p.expect(control.TypeReady)); r.Epoch != serve.Epoch {
		p.t.Fatalf("ready for epoch %d, want %d", r.Epoch, serve.Epoch)
	}
}

// fatal expects the worker to give up with a reason.
func (p *post) fatal(reason string) {
	p.t.Helper()
	f := decode[control.Fatal](p.t, p.expect(control.TypeFatal))
	if f.Reason != reason || f.Detail == "" {
		p.t.Errorf("fatal %+v, want %q", f, reason)
	}
	p.ended(1)
}

func (p *post) ended(code int) {
	p.t.Helper()
	select {
	case got := <-p.exit:
		if got != code {
			p.t.Errorf("exit code %d, want %d", got, code)
		}
	case <-time.After(30 * time.Second):
		p.t.Fatal("the worker does not end")
	}
}

// call sends a chat request; text may hold echo's directives.
func (p *post) call(text string, stream bool) *http.Response {
	p.t.Helper()
	raw, err := json.Marshal(map[string]any{
		"model": "solo", "max_tokens": 20, "stream": stream, "messages": []any{map[string]string{"role": "user", "content": text}},
	})
	if err != nil {
		p.t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(p.t.Context(), http.MethodPost, p.url+"/v1/chat/completions", bytes.NewReader(raw))
	if err != nil {
		p.t.Fatal(err)
	}
	control.Head{Request: bulkhead.NewRequestID(time.Now()), Key: "key_bot"}.Set(r.Header)
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { resp.Body.Close() })
	return resp
}

// begin starts a stream and returns when its first event has come.
func (p *post) begin(text string) *http.Response {
	p.t.Helper()
	resp := p.call(text, true)
	if _, err := io.ReadFull(resp.Body, make([]byte, 10)); err != nil || resp.StatusCode != 200 {
		p.t.Fatalf("status %d, %v", resp.StatusCode, err)
	}
	return resp
}

func (p *post) ask(text string) (status int, body string) {
	p.t.Helper()
	resp := p.call(text, false)
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

func (p *post) mustAsk(text string) {
	p.t.Helper()
	if status, body := p.ask(text); status != 200 {
		p.t.Fatalf("%d %s", status, body)
	}
}
