package steward

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"github.com/bulkhead-ai/bulkhead/cluster/transport"
	"github.com/bulkhead-ai/bulkhead/cluster/transport/ca"
)

// joiner is a machine with a token, talking over one connection.
type joiner struct {
	token    ca.Token
	exporter []byte
}

func newJoiner(t *testing.T, f *fleet) joiner {
	token, err := ca.NewToken(f.auth.SPKI())
	if err != nil {
		t.Fatal(err)
	}
	f.must(&command.CreateJoinToken{ID: token.ID, Key: token.Key(), ExpiresAt: time.Now().Add(time.Hour).UnixMilli()})
	return joiner{token, bytes.Repeat([]byte{7}, ca.ExporterBytes)}
}

func (j joiner) request(t *testing.T, node string) transport.JoinRequest {
	key, err := ca.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	csr, err := ca.NewCSR(key)
	if err != nil {
		t.Fatal(err)
	}
	payload, err := json.Marshal(describe(node))
	if err != nil {
		t.Fatal(err)
	}
	return transport.JoinRequest{
		Token: j.token.ID, Node: node, CSR: csr, Payload: payload,
		Proof: j.token.Prove(j.exporter), Exporter: j.exporter,
	}
}

func code(err error) string {
	var e *bulkhead.Error
	if !errors.As(err, &e) {
		return ""
	}
	return e.Code
}

func TestTokenLetsOneNodeIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 2, 0)
		f.run()
		time.Sleep(time.Second)
		j := newJoiner(t, f)
		at := f.nodes["n2"].steward // not the leader

		elsewhere := j.request(t, "n3")
		elsewhere.Exporter = bytes.Repeat([]byte{8}, ca.ExporterBytes)
		liar := j.request(t, "n3")
		liar.Node = "n9" // a certificate for another name than the state gets
		unsigned := j.request(t, "n3")
		unsigned.CSR = []byte("none")
		for want, req := range map[string]transport.JoinRequest{"token_unknown": elsewhere, "invalid_join": liar, "invalid_csr": unsigned} {
			if _, err := at.Admit(t.Context(), req); code(err) != want {
				t.Errorf("%v, want %s", err, want)
			}
		}

		req := j.request(t, "n3")
		a, err := at.Admit(t.Context(), req)
		if err != nil {
			t.Fatalf("refusals must not cost the token: %v", err)
		}
		var payload JoinAnswer
		if err := json.Unmarshal(a.Payload, &payload); err != nil {
			t.Fatal(err)
		}
		if string(payload.ClusterKey) != "the cluster key" || payload.Node.ID != "n3" || len(payload.Peers) != 3 {
			t.Errorf("answer %+v", payload)
		}
		checkChain(t, a, "n3")
		if _, err := at.Admit(t.Context(), j.request(t, "n4")); code(err) != "token_used" {
			t.Errorf("second use: %v, want token_used", err)
		}
		if _, ok := f.st.Node("n4"); ok {
			t.Error("the second machine is a member")
		}
	})
}

func checkChain(t *testing.T, a transport.JoinAnswer, node string) {
	t.Helper()
	pool, err := ca.Roots(a.Roots)
	if err != nil {
		t.Fatal(err)
	}
	leaf := parseLeaf(t, a.Chain)
	got, err := ca.Verify(pool, "testing", []*x509.Certificate{leaf}, time.Now(), x509.ExtKeyUsageClientAuth)
	if err != nil || got != node {
		t.Errorf("certificate of %q, %v", got, err)
	}
}

func TestOfTwoWithOneTokenOneIsLetIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 2, 0)
		f.run()
		time.Sleep(time.Second)
		j := newJoiner(t, f)
		results := make(chan error, 2)
		for i, node := range []string{"n3", "n4"} {
			at := f.nodes[f.names()[i]].steward
			req := j.request(t, node)
			go func() {
				_, err := at.Admit(context.Background(), req)
				results <- err
			}()
		}
		first, second := <-results, <-results
		if first != nil {
			first, second = second, first
		}
		if first != nil || code(second) != "token_used" {
			t.Errorf("outcomes %v and %v", first, second)
		}
	})
}

func TestCertificateIsRenewedInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 3, 0)
		old := f.certify("n2", time.Minute)
		f.nodes["n2"].certificate = old
		f.run()
		time.Sleep(39 * time.Second)
		if f.nodes["n2"].cert() != old {
			t.Error("renewed with more than a third of its time left")
		}
		f.set(func() { f.nodes["n2"].cut = true })
		time.Sleep(10 * time.Second)
		f.set(func() { f.nodes["n2"].cut = false })
		time.Sleep(time.Minute) // it tries once a minute
		fresh := f.nodes["n2"].cert()
		if fresh == old || time.Until(fresh.NotAfter) < ca.NodeTTL-2*time.Minute {
			t.Errorf("certificate until %v, now %v", fresh.NotAfter, time.Now())
		}
	})
}

func TestStartIsRegisteredOrRefusedForGood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 3, 1)
		f.must(&command.MarkNodes{RaftIndex: map[string]uint64{"n3": f.last()}})
		n, mark := f.nodes["n3"], f.last()
		d := describe("n3")
		n.newStart = &command.StartNode{ID: "n3", Addr: d.Addr, Level: 1, Receiver: d.Receiver, Boot: "boot-2", RaftIndex: 1}
		n.earlier = []string{"boot-0"}
		f.run()
		time.Sleep(5 * time.Second)
		if n.agent.Lease().Held() {
			t.Error("a start that is not registered got a lease")
		}
		f.elect("")
		go func() {
			time.Sleep(5 * time.Second)
			f.elect("n1")
		}()
		if err := n.agent.Register(t.Context()); code(err) != "disk_rolled_back" {
			t.Errorf("start with an old disk: %v", err)
		}
		n.stop()
		n.newStart.RaftIndex = mark
		n.run()
		if err := n.agent.Register(t.Context()); code(err) != "disk_rolled_back" {
			t.Errorf("start with a disk that does not know of the latest start: %v", err)
		}
		n.stop()
		n.earlier = []string{"boot-0", d.Boot}
		n.run()
		if err := n.agent.Register(t.Context()); err != nil {
			t.Errorf("start: %v", err)
		}
		time.Sleep(time.Second)
		if !n.agent.Lease().Held() {
			t.Error("no lease after the registration")
		}
	})
}

func parseLeaf(t *testing.T, chain []byte) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode(chain)
	if block == nil {
		t.Fatal("no certificate")
	}
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return leaf
}
