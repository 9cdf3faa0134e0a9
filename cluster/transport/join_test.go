package transport

import (
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"errors"
	"net"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/transport/ca"
)

// desk handles joins as a cluster does: token by id, proof, expiry, single use.
type desk struct {
	ca *ca.CA

	mu      sync.Mutex
	tokens  map[string][]byte
	expires map[string]time.Time
	proofs  [][]byte
}

func (d *desk) token(t *testing.T, ttl time.Duration) ca.Token {
	t.Helper()
	tok := must[ca.Token](t)(ca.NewToken(d.ca.SPKI()))
	d.mu.Lock()
	defer d.mu.Unlock()
	d.tokens[tok.ID], d.expires[tok.ID] = tok.Key(), time.Now().Add(ttl)
	return tok
}

var errToken = bulkhead.E(bulkhead.PermissionDenied, "bad_token", "The join token is not good.")

func (d *desk) join(_ context.Context, r JoinRequest) (a JoinAnswer, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.proofs = append(d.proofs, r.Proof)
	if !ca.VerifyProof(d.tokens[r.Token], r.Exporter, r.Proof) {
		return a, errToken.With(errors.New("proof of " + r.Remote))
	}
	if time.Now().After(d.expires[r.Token]) {
		return a, errToken.With(errors.New("expired"))
	}
	delete(d.tokens, r.Token)
	a.Roots, a.Payload = d.ca.CertPEM(), r.Payload
	a.Chain, err = d.ca.Sign(r.CSR, r.Node, ca.NodeTTL)
	return a, err
}

func newDesk(w *world, at *Transport) *desk {
	d := &desk{ca: w.ca, tokens: map[string][]byte{}, expires: map[string]time.Time{}}
	at.HandleJoin(d.join)
	return d
}

func joinConfig(t *testing.T, w *world, tok ca.Token) JoinConfig {
	t.Helper()
	tok = must[ca.Token](t)(ca.ParseToken(tok.Encode())) // as an operator passes it on
	return JoinConfig{
		Addr: w.addrs["a"], Token: tok, Node: "n", Key: must[*ecdsa.PrivateKey](t)(ca.NewKey()),
		Payload: map[string]string{"addr": "n:1"},
	}
}

func TestJoinThenTalk(t *testing.T) {
	w := newWorld(t, nil)
	a := w.node("a")
	d := newDesk(w, a)
	cfg := joinConfig(t, w, d.token(t, time.Hour))
	j := must[Joined](t)(Join(t.Context(), cfg))
	if j.ClusterID != "c1" || string(j.Payload) != `{"addr":"n:1"}` {
		t.Errorf("joined: %q, %s", j.ClusterID, j.Payload)
	}
	w.set(func() { w.ids["n"] = must[*tls.Certificate](t)(ca.Identity(j.Chain, cfg.Key)) })
	mustPing(t, w.node("n"), "a")

	if _, err := Join(t.Context(), cfg); bulkhead.AsError(err).Code != "bad_token" {
		t.Errorf("second use: %v", err)
	}
}

func TestJoinIsRefused(t *testing.T) {
	w := newWorld(t, nil)
	a := w.node("a")
	if _, err := Join(t.Context(), joinConfig(t, w, must[ca.Token](t)(ca.NewToken(w.ca.SPKI())))); bulkhead.AsError(err).Code != "join_unavailable" {
		t.Errorf("nobody handles joins: %v", err)
	}
	d := newDesk(w, a)
	good := d.token(t, time.Hour)
	wrong := must[ca.Token](t)(ca.NewToken(w.ca.SPKI()))
	wrong.ID = good.ID
	for name, tok := range map[string]ca.Token{
		"wrong secret": wrong, "expired": d.token(t, -time.Second),
		"unknown": must[ca.Token](t)(ca.NewToken(w.ca.SPKI())),
	} {
		_, err := Join(t.Context(), joinConfig(t, w, tok))
		if e := bulkhead.AsError(err); e.Code != "bad_token" || errors.Is(err, ErrNoAnswer) {
			t.Errorf("%s: %v", name, err)
		} else if e.Err != nil && e.Err.Error() != "" {
			t.Errorf("%s: detail goes to a stranger: %v", name, e.Err)
		}
	}
	seen := len(d.proofs)
	other := good
	other.CA = newCA(t, "c1").SPKI()
	if _, err := Join(t.Context(), joinConfig(t, w, other)); err == nil {
		t.Error("joined a cluster that the token does not pin")
	}
	if len(d.proofs) != seen {
		t.Error("a proof was sent to a cluster that the token does not pin")
	}
	cfg := joinConfig(t, w, good)
	cfg.Node = "../n"
	if _, err := Join(t.Context(), cfg); err == nil {
		t.Error("joined under a name that is none")
	}
}

// A proof taken from one connection is worth nothing on another.
func TestJoinProofHoldsForItsConnectionOnly(t *testing.T) {
	w := newWorld(t, nil)
	a := w.node("a")
	d := newDesk(w, a)
	tok := d.token(t, time.Hour)
	var seen [][]byte
	a.HandleJoin(func(_ context.Context, r JoinRequest) (JoinAnswer, error) {
		if !ca.VerifyProof(tok.Key(), r.Exporter, r.Proof) {
			t.Error("a good proof is refused")
		}
		for _, old := range seen {
			if ca.VerifyProof(tok.Key(), r.Exporter, old) {
				t.Error("a replayed proof is accepted")
			}
		}
		seen = append(seen, r.Proof)
		return JoinAnswer{}, errToken
	})
	for range 3 {
		_, _ = Join(t.Context(), joinConfig(t, w, tok))
	}
	if len(seen) != 3 || slices.Equal(seen[0], seen[1]) {
		t.Errorf("proofs: %x", seen)
	}
}

// A member of the cluster that answers rubbish is not believed.
func TestJoinerChecksTheAnswer(t *testing.T) {
	w := newWorld(t, nil)
	a := w.node("a")
	foreign := newCA(t, "c1")
	for name, f := range map[string]JoinHandler{
		"another node's name": func(_ context.Context, r JoinRequest) (JoinAnswer, error) {
			chain, err := w.ca.Sign(r.CSR, "m", ca.NodeTTL)
			return JoinAnswer{Chain: chain, Roots: w.ca.CertPEM()}, err
		},
		"another key": func(_ context.Context, r JoinRequest) (JoinAnswer, error) {
			csr, err := ca.NewCSR(must[*ecdsa.PrivateKey](t)(ca.NewKey()))
			if err != nil {
				return JoinAnswer{}, err
			}
			chain, err := w.ca.Sign(csr, r.Node, ca.NodeTTL)
			return JoinAnswer{Chain: chain, Roots: w.ca.CertPEM()}, err
		},
		"another authority": func(_ context.Context, r JoinRequest) (JoinAnswer, error) {
			chain, err := foreign.Sign(r.CSR, r.Node, ca.NodeTTL)
			return JoinAnswer{Chain: chain, Roots: foreign.CertPEM()}, err
		},
		"roots without ours": func(_ context.Context, r JoinRequest) (JoinAnswer, error) {
			chain, err := w.ca.Sign(r.CSR, r.Node, ca.NodeTTL)
			return JoinAnswer{Chain: chain, Roots: foreign.CertPEM()}, err
		},
		"nothing": func(context.Context, JoinRequest) (JoinAnswer, error) { return JoinAnswer{}, nil },
	} {
		a.HandleJoin(f)
		if _, err := Join(t.Context(), joinConfig(t, w, must[ca.Token](t)(ca.NewToken(w.ca.SPKI())))); err == nil {
			t.Errorf("%s is believed", name)
		}
	}
}

// Joins that take long keep other joiners out, and no member.
func TestJoinsAreFewAtATime(t *testing.T) {
	w := newWorld(t, nil)
	a, b := w.node("a"), w.node("b")
	release, begun := make(chan struct{}), make(chan struct{}, maxJoins)
	a.HandleJoin(func(context.Context, JoinRequest) (JoinAnswer, error) {
		begun <- struct{}{}
		<-release
		return JoinAnswer{}, errToken
	})
	tok := must[ca.Token](t)(ca.NewToken(w.ca.SPKI()))
	var wg sync.WaitGroup
	for range maxJoins {
		wg.Go(func() {
			if _, err := Join(t.Context(), joinConfig(t, w, tok)); bulkhead.AsError(err).Code != "bad_token" {
				t.Errorf("join: %v", err)
			}
		})
	}
	for range maxJoins {
		<-begun
	}
	if _, err := Join(t.Context(), joinConfig(t, w, tok)); bulkhead.AsError(err).Code != "node_busy" {
		t.Errorf("one too many: %v", err)
	}
	mustPing(t, b, "a")
	close(release)
	wg.Wait()
}

// Whoever says nothing, at any stage, blocks nobody and is gone after 5 s.
func TestDawdlersBlockNobody(t *testing.T) {
	w := newWorld(t, nil)
	a := w.node("a")
	d := newDesk(w, a)
	var idle []net.Conn
	for i := range 3 * maxPendingSource {
		c := must[net.Conn](t)(net.Dial("tcp", w.addrs["a"]))
		if i%3 == 1 {
			_, _ = c.Write([]byte{22, 3, 1, 2, 0}) // the beginning of a handshake
		}
		idle = append(idle, c)
	}
	for silent, tries := 0, 0; silent < maxJoins*2; tries++ { // through the handshake, then silent
		conn, err := tls.Dial("tcp", w.addrs["a"], &tls.Config{InsecureSkipVerify: true, NextProtos: []string{protoJoin}})
		if err != nil && tries < 100 {
			continue // on a busy machine the server may take it for older than the others, and close it to make room
		}
		if err != nil {
			t.Fatal(err)
		}
		silent++
		idle = append(idle, conn)
	}
	mustPing(t, w.node("b"), "a")
	if _, err := Join(t.Context(), joinConfig(t, w, d.token(t, time.Hour))); err != nil {
		t.Errorf("join: %v", err)
	}
	for _, c := range idle { // all are closed by the server, most of them early
		_ = c.SetReadDeadline(time.Now().Add(bound))
		if _, err := c.Read(make([]byte, 1024)); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error("a dawdler stays")
		}
		_ = c.Close()
	}
}

func TestPendingEvictsTheOldest(t *testing.T) {
	var p pending
	conns := make([]net.Conn, maxPendingSource+1)
	for i := range conns {
		c, far := net.Pipe()
		defer far.Close()
		conns[i] = c
		p.add(c)
	}
	if n := p.conns.Len(); n != maxPendingSource {
		t.Errorf("%d are pending", n)
	}
	if _, err := conns[0].Write(nil); err == nil {
		t.Error("the oldest is open")
	}
	p.closeAll()
	for e := p.conns.Front(); e != nil; e = p.conns.Front() {
		p.remove(e)
		p.remove(e) // twice does no harm
	}
	if len(p.sources) != 0 {
		t.Errorf("sources left: %v", p.sources)
	}
}
