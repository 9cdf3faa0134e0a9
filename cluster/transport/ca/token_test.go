package ca

import (
	"crypto/rand"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

func newToken(t *testing.T, addrs ...string) Token {
	t.Helper()
	tok, err := NewToken([32]byte{0xab, 2, 3}, addrs...)
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

func TestTokenRoundTrip(t *testing.T) {
	for _, addrs := range [][]string{nil, {"10.0.0.1:8082"}, {"n1.example:8082", "[::1]:8082"}} {
		tok := newToken(t, addrs...)
		got, err := ParseToken(tok.Encode())
		if err != nil || !reflect.DeepEqual(got, tok) {
			t.Errorf("%v: %v, %v", addrs, got, err)
		}
	}
	if a, b := newToken(t), newToken(t); a.ID == b.ID || a.secret == b.secret {
		t.Error("two tokens are alike")
	}
}

func TestTokenIsNotPrinted(t *testing.T) {
	tok := newToken(t)
	secret := strings.Split(tok.Encode(), ".")[3]
	for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
		if s := fmt.Sprintf(verb, tok); strings.Contains(s, secret) || !strings.Contains(s, tok.ID) {
			t.Errorf("%s prints %q", verb, s)
		}
	}
}

func TestBadTokens(t *testing.T) {
	good := newToken(t, "n1:8082").Encode()
	parts := strings.Split(good, ".")
	with := func(i int, s string) string {
		p := append([]string(nil), parts...)
		p[i] = s
		return strings.Join(p, ".")
	}
	for _, s := range []string{
		"", "bh1", with(0, "bh2"), with(1, parts[1][2:]), with(1, strings.ToUpper(parts[1])), with(2, ""), with(2, "a b"),
		with(2, strings.Repeat("a", 65)), with(3, parts[3][1:]), with(3, parts[3]+"="), with(4, ""), with(4, "!"), with(4, "bm9wb3J0"),
		good + ".x", " " + good, good + "\n", strings.Repeat("a", maxToken+1),
	} {
		if _, err := ParseToken(s); err == nil {
			t.Errorf("took %q", s)
		} else if strings.Contains(err.Error(), parts[3]) {
			t.Errorf("the error repeats the secret: %v", err)
		}
	}
	if _, err := NewToken([32]byte{}, "no port"); err == nil {
		t.Error("made a token with a bad address")
	}
	if _, err := NewToken([32]byte{}, make([]string, maxTokenAddrs+1)...); err == nil {
		t.Error("made a token with too many addresses")
	}
}

func TestProof(t *testing.T) {
	tok, other := newToken(t), newToken(t)
	exporter, elsewhere := make([]byte, ExporterBytes), make([]byte, ExporterBytes)
	_, _ = rand.Read(exporter)
	_, _ = rand.Read(elsewhere)
	proof := tok.Prove(exporter)
	if !VerifyProof(tok.Key(), exporter, proof) {
		t.Error("a good proof is refused")
	}
	for name, ok := range map[string]bool{
		"another connection": VerifyProof(tok.Key(), elsewhere, proof),
		"another token":      VerifyProof(other.Key(), exporter, proof),
		"no key":             VerifyProof(nil, exporter, prove(nil, exporter)),
		"no exporter":        VerifyProof(tok.Key(), nil, prove(tok.Key(), nil)),
		"cut short":          VerifyProof(tok.Key(), exporter, proof[:31]),
		"empty":              VerifyProof(tok.Key(), exporter, nil),
	} {
		if ok {
			t.Errorf("%s: verified", name)
		}
	}
}

func FuzzParseToken(f *testing.F) {
	for _, addrs := range [][]string{nil, {"n1:8082"}} {
		tok, err := NewToken([32]byte{9}, addrs...)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(tok.Encode())
	}
	f.Add("bh1....")
	f.Fuzz(func(t *testing.T, s string) {
		tok, err := ParseToken(s)
		if err == nil && tok.Encode() != s {
			t.Fatalf("%q is printed as %q", s, tok.Encode())
		}
	})
}
