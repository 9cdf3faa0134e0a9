package edge

import (
	"bytes"
	"io"
	"net"
	"testing"
	"time"

	"github.com/bulkhead-ai/bulkhead"
)

func TestErrorsCross(t *testing.T) {
	sent := &bulkhead.Error{Kind: bulkhead.RateLimited, Code: "c", Message: "m", Param: "p", RetryAfter: 1500 * time.Millisecond,
		Err: io.ErrUnexpectedEOF}
	var wire bytes.Buffer
	if err := writeFrame(&wire, &answer{State: stateRefused, Error: toWire(sent)}); err != nil {
		t.Fatal(err)
	}
	var a answer
	if err := readFrame(&wire, &a); err != nil {
		t.Fatal(err)
	}
	got := a.Error.refusal("n1")
	want := *sent
	want.Err = nil // the operator's detail stays
	if *got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if e := (*wireError)(nil).refusal("n1"); e.Code != "tenant_unavailable" {
		t.Errorf("no reason: %v", e)
	}
}

// FuzzReadFrame: whatever a peer sends, no more is read or kept than a frame may
// have.
func FuzzReadFrame(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x02{}"))
	f.Add([]byte("\xff\xff\xff\xff{}"))
	f.Add([]byte(`{"tenant":"acme"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r := bytes.NewReader(data)
		var a ask
		err := readFrame(r, &a)
		if read := len(data) - r.Len(); read > 4+maxFrame {
			t.Errorf("%d bytes were read", read)
		}
		if err == nil && writeFrame(io.Discard, &a) != nil && len(a.Tenant) < maxFrame/8 {
			t.Errorf("%+v cannot be written again", a)
		}
	})
}

// TestHostileAsk: a peer that speaks nonsense is hung up on or refused, and
// reaches no worker.
func TestHostileAsk(t *testing.T) {
	c := newCluster(t, newPlainFabric(t), nil)
	for name, text := range map[string]string{
		"too long": "\xff\xff\xff\xff", "no json": "\x00\x00\x00\x02{]", "cut off": "\x00\x00\x00\x09{",
		"eager": "\x00\x00\x00\x02{}GET / HTTP/1.1\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			ours, theirs := net.Pipe()
			done := make(chan struct{})
			go func() { defer close(done); c.nodes["n1"].router.ServeTenant(t.Context(), "n2", theirs) }()
			ours.SetDeadline(time.Now().Add(20 * time.Second)) // a bound on hanging
			io.WriteString(ours, text)
			if name == "cut off" {
				ours.Close()
			}
			if got, _ := io.ReadAll(ours); bytes.Contains(got, []byte(stateHanded)) {
				t.Errorf("answered %q", got)
			}
			<-done
		})
	}
	if c.nodes["n1"].workers.serving["acme"] != nil {
		t.Error("a worker was started")
	}
}
