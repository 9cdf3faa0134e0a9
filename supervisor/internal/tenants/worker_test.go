package tenants

import (
	"crypto/ed25519"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/worker/control"
	"github.com/bulkhead-ai/bulkhead/worker/receipt"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// The test binary is its own worker: with modeVar set it speaks the worker's
// side of the protocol over the real descriptors, well or, by the mode's name,
// badly.
const modeVar = "BULKHEAD_TEST_WORKER"

func TestMain(m *testing.M) {
	if mode := os.Getenv(modeVar); mode != "" {
		os.Exit(playWorker(mode))
	}
	code := m.Run()
	if err := goleak.Find(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// player is a worker of the tests.
type player struct {
	mode   string
	conn   *control.Conn
	broker *control.Broker
	start  control.Start
	key    ed25519.PrivateKey
	epoch  bulkhead.Epoch
	seq    uint64
	tree   receipt.Frontier
	rev    atomic.Uint64
	acked  chan uint64

	replica *os.File
}

func playWorker(mode string) int {
	p := &player{mode: mode, conn: control.NewConn(os.NewFile(control.FDControl, "control")), acked: make(chan uint64, 100)}
	fmt.Fprintln(os.Stderr, `{"level":"warn","msg":"hello","tenant":"forged"}`)
	broker, err := control.FileBrokerConn(os.NewFile(control.FDBroker, "broker"))
	if err != nil {
		return 10
	}
	p.broker = control.NewBroker(broker)
	if _, err := receive(p, control.TypeStart, &p.start); err != nil {
		return 11
	}
	switch mode {
	case "exits":
		return 7
	case "fatal":
		p.conn.Send(control.TypeFatal, control.Fatal{Reason: "low_disk", Detail: "3 bytes left\n"})
		return 1
	case "silent":
		p.conn.Receive() // for ever, or until the supervisor closes
		return 0
	case "hasty":
		p.conn.Send(control.TypeReady, control.Ready{Epoch: 1})
	case "huge":
		io.Copy(os.NewFile(control.FDControl, "control"), strings.NewReader("\xff\xff\xff\xff\x10"))
		select {}
	}
	if code := p.handshake(); code != 0 {
		return code
	}
	return p.serve()
}

// receive reads one message of the type that is due.
func receive[T any](p *player, want control.Type, into *T) (control.Type, error) {
	kind, raw, err := p.conn.Receive()
	if err != nil || kind != want {
		return kind, fmt.Errorf("type %d: %w", kind, err)
	}
	*into, err = control.Decode[T](raw)
	return kind, err
}

func (p *player) handshake() int {
	public, private, _ := ed25519.GenerateKey(nil)
	p.key = private
	p.conn.Send(control.TypeHello, control.Hello{PublicKey: public, Layers: []control.Layer{{Name: "seccomp", On: true}}})
	var serve control.Serve
	if _, err := receive(p, control.TypeServe, &serve); err != nil {
		return 12
	}
	p.epoch, p.seq = serve.Epoch, serve.AppliedSeq
	p.replica = os.NewFile(control.FDReplica, "replica")
	if serve.Replicated != (p.mode == "copied") {
		return 17
	}
	if len(serve.Frontier) > 0 && p.tree.UnmarshalBinary(serve.Frontier) != nil {
		return 13
	}
	p.rev.Store(p.start.Policy.Rev)
	for fd, handler := range map[uintptr]http.Handler{control.FDRequests: p.requests(), control.FDQueries: p.queries()} {
		l, err := net.FileListener(os.NewFile(fd, "listener"))
		if err != nil {
			return 14
		}
		go http.Serve(l, handler)
	}
	p.conn.Send(control.TypeReady, control.Ready{Epoch: p.epoch})
	return 0
}

func (p *player) serve() int {
	for {
		kind, raw, err := p.conn.Receive()
		if err != nil {
			return 0
		}
		switch kind {
		case control.TypePolicy:
			if p.mode == "deaf" {
				continue
			}
			policy, err := control.Decode[control.Policy](raw)
			if err != nil {
				return 15
			}
			p.rev.Store(policy.Rev)
			p.conn.Send(control.TypePolicyApplied, control.PolicyApplied{Rev: policy.Rev})
		case control.TypeAck:
			ack, _ := control.Decode[control.Ack](raw)
			p.acked <- ack.Seq
		case control.TypeDrain:
			if p.mode == "stubborn" {
				continue
			}
			p.conn.Send(control.TypeDrained, control.Drained{HeadSeq: p.seq})
			return 0
		}
	}
}

// requests answers what a test asks of the worker.
func (p *player) requests() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/policy", func(w http.ResponseWriter, r *http.Request) {
		json.NewEncoder(w).Encode(p.start.Policy)
	})
	mux.HandleFunc("/start", func(w http.ResponseWriter, r *http.Request) {
		json.NewEncoder(w).Encode(p.start)
	})
	mux.HandleFunc("/rev", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, p.rev.Load()) })
	mux.HandleFunc("/piece", func(w http.ResponseWriter, _ *http.Request) { // as a journal that writes a group
		if _, err := control.WritePiece(p.replica, control.Piece{Segment: 1, Data: []byte("sealed")}, nil); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		seq, err := control.ReadAcked(p.replica)
		fmt.Fprint(w, seq, err)
	})
	mux.HandleFunc("/unfed", func(http.ResponseWriter, *http.Request) { p.replica.Close(); select {} })
	mux.HandleFunc("/lease", func(w http.ResponseWriter, _ *http.Request) {
		m, err := unix.Mmap(control.FDLease, 0, 8, unix.PROT_READ, unix.MAP_SHARED)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		fmt.Fprint(w, int64(binary.NativeEndian.Uint64(m)))
	})
	mux.HandleFunc("/crash", func(http.ResponseWriter, *http.Request) { os.Exit(3) })
	mux.HandleFunc("/send", func(_ http.ResponseWriter, r *http.Request) { // a message out of turn
		kind, _ := strconv.Atoi(r.FormValue("type"))
		p.conn.Send(control.Type(kind), json.RawMessage(r.FormValue("json")))
		select {}
	})
	mux.HandleFunc("/bill", func(w http.ResponseWriter, r *http.Request) {
		p.bill()
		fmt.Fprint(w, <-p.acked)
	})
	mux.HandleFunc("/forge", func(http.ResponseWriter, *http.Request) {
		_, p.key, _ = ed25519.GenerateKey(nil)
		p.bill()
		select {}
	})
	mux.HandleFunc("/dial", func(w http.ResponseWriter, r *http.Request) {
		conn, err := p.broker.Dial(r.Context(), r.FormValue("provider"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer conn.Close()
		io.Copy(w, conn)
	})
	return mux
}

func (p *player) queries() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "the logbook") })
}

// bill sends a batch with one receipt.
func (p *player) bill() {
	p.seq++
	now := time.Now()
	r := receipt.Receipt{
		Tenant: p.start.Tenant, Seq: p.seq, Epoch: p.epoch, Request: bulkhead.NewRequestID(now), Attempt: 1, Final: true,
		Outcome: bulkhead.Served, Status: 200, StartedAt: now.UnixMilli(), SettledAt: now.UnixMilli(), Day: now.UTC().Format(time.DateOnly),
		Endpoint: "chat/completions", Model: "fast", Provider: "main", Usage: bulkhead.Usage{Input: 10, Output: 5},
		Cost: 15, Currency: "USD", PriceBook: "default@1", Salt: strings.Repeat("0a", 16),
	}
	line := r.AppendJSON(nil)
	p.tree.Append(receipt.LeafHash(line))
	raw, err := receipt.SealBatch(&receipt.Batch{
		Tenant: r.Tenant, Epoch: r.Epoch, From: p.seq, To: p.seq, Leaves: [][]byte{line},
		TreeSize: p.tree.Size(), Root: p.tree.Root(),
	}, p.key)
	if err != nil {
		os.Exit(16)
	}
	p.conn.Send(control.TypeReceipts, raw)
}
