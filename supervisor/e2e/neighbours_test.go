package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
)

// neighbours is a node with red and blue on an upstream each; blue has a
// stream open that does not end before the story says so.
type neighbours struct {
	*node
	red, blue     key
	redUp, blueUp *upstream
	slow          *stream // blue's
}

func startNeighbours(t *testing.T, n *node) *neighbours {
	t.Helper()
	x := &neighbours{node: n, redUp: startUpstream(t), blueUp: startUpstream(t)}
	x.red, x.blue = n.tenant("red", "{}", x.redUp), n.tenant("blue", "{}", x.blueUp)
	x.slow = n.stream(x.blue.Key, chat("[[up gate=slow chunks=20]]", `"stream":true`))
	if _, ok := x.slow.next(); !ok {
		t.Fatal("no first event")
	}
	return x
}

// unnoticed fails unless blue's stream runs to its end, its process is the one
// it was, and new requests of it are served.
func (x *neighbours) unnoticed(pid int) {
	x.t.Helper()
	x.chat(200, x.blue.Key, chat("meanwhile"))
	x.blueUp.gate("slow").release()
	x.slow.whole()
	if now := x.one("bulkhead-worker tenant=blue"); now != pid {
		x.t.Errorf("blue's worker is process %d, was %d", now, pid)
	}
}

// TestKilledWorker: kill -9 of a tenant's worker ends that tenant's running
// requests and nothing else; it is back on its next request, and the request
// that was running is on the books.
func TestKilledWorker(t *testing.T) {
	t.Parallel()
	x := startNeighbours(t, startDev(t))
	pid := x.one("bulkhead-worker tenant=blue")

	s := x.stream(x.red.Key, chat("[[up gate=slow]]", `"stream":true`))
	s.next()
	killProcess(t, x.one("bulkhead-worker tenant=red"))
	for _, data := range s.rest() {
		if data == "[DONE]" {
			t.Error("a broken stream says [DONE]")
		}
	}
	x.chat(200, x.red.Key, chat("again"))
	x.unnoticed(pid)

	row := x.booked("red", 2)
	if row.Served != 1 || row.Failed != 1 || row.Unknown != 1 {
		t.Errorf("booked %+v", row)
	}
	if l := x.logged("red", s.id()); l.Outcome != "failed" {
		t.Errorf("logged %+v", l)
	}
	if row := x.booked("blue", 2); row.Served != 2 {
		t.Errorf("booked %+v", row)
	}
}

// TestKilledPlugin: kill -9 of a plugin process fails what it was translating;
// its worker starts another one for the next request.
func TestKilledPlugin(t *testing.T) {
	t.Parallel()
	n := startDev(t)
	n.must("", "plugin", "add", "openai", program("bulkhead-provider-openai"))
	x := startNeighbours(t, n)
	pid := x.one("bulkhead-worker tenant=blue")
	x.provider("red", "up", x.redUp, ", plugin: true")
	x.chat(200, x.red.Key, chat("first"))
	red := x.one("bulkhead-worker tenant=red")

	s := x.stream(x.red.Key, chat("[[up gate=slow]]", `"stream":true`))
	s.next()
	killProcess(t, x.one("bulkhead-provider-openai tenant=red"))
	x.redUp.gate("slow").release()
	for _, data := range s.rest() {
		if data == "[DONE]" {
			t.Error("a broken stream says [DONE]")
		}
	}
	eventually(t, "red is back", func() error {
		a, err := x.try(context.Background(), x.red.Key, "chat/completions", chat("again"))
		if err == nil && a.status != 200 {
			err = errors.New(a.String())
		}
		return err
	})
	if now := x.one("bulkhead-worker tenant=red"); now != red {
		t.Errorf("red's worker is process %d, was %d: a plugin's death must not end it", now, red)
	}
	x.unnoticed(pid)
	if row := x.booked("blue", 2); row.Served != 2 {
		t.Errorf("booked %+v", row)
	}
}

// TestFullQuota: a tenant whose journal may not grow is refused, because what
// cannot be recorded is not served; its neighbour has its own quota.
func TestFullQuota(t *testing.T) {
	t.Parallel()
	n := startServer(t, `journal: {segment: 64KiB, quota: 1MiB, min_free: 0}
worker: {receipt_interval: 60s}`)
	x := startNeighbours(t, n)
	pid := x.one("bulkhead-worker tenant=blue")

	// Refusals are records too, and cost nothing else. Booked receipts may leave
	// the journal, hence the long interval above.
	var full answer
	for i := range 20_000 {
		full = x.post(x.red.Key, "chat/completions", fmt.Sprintf(`{"model":"nowhere-%d"}`, i%3))
		if full.status != 404 {
			break
		}
	}
	if full.status != 503 || full.code() != "log_unavailable" {
		t.Fatalf("the quota does not show: %s", full)
	}
	before := len(x.redUp.record())
	if a := x.chat(503, x.red.Key, chat("x")); a.code() != "log_unavailable" || a.header.Get("Retry-After") == "" {
		t.Errorf("got %s %v", a, a.header)
	}
	if len(x.redUp.record()) != before {
		t.Error("a request that cannot be recorded went upstream")
	}
	x.unnoticed(pid)
}

// TestDrain: SIGTERM lets a running stream end, takes nothing new, and ends the
// node; everything is on the books of the next start.
func TestDrain(t *testing.T) {
	t.Parallel()
	x := startNeighbours(t, startDev(t))
	*x.family = append(*x.family, descendants(x.cmd.Process.Pid)...)
	done := make(chan struct{})
	go func() { defer close(done); x.stop() }()
	eventually(t, "the node takes nothing new", func() error {
		_, err := x.try(context.Background(), x.red.Key, "chat/completions", chat("late"))
		if err == nil {
			return errors.New("it does")
		}
		return nil
	})
	if !x.running() {
		t.Fatal("the node ended under a running stream")
	}
	x.blueUp.gate("slow").release()
	x.slow.whole()
	<-done
	if code := x.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("exit status %d", code)
	}
	x.nothingLeft()
	x.start()
	if row := x.booked("blue", 1); row.Served != 1 {
		t.Errorf("booked %+v", row)
	}
}
