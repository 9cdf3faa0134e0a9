package erasure

import (
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
)

func sample() *Certificate {
	at := time.UnixMilli(1_700_000_000_123).UTC()
	return &Certificate{
		Cluster: "bank", Tenant: "acme", Plan: "era_1", Reason: "line\nbreak, \"quotes\", <b> and \u2028 and \x7f", By: "admin@bank.example",
		Started: at, Certified: at.Add(time.Hour), Steps: []StepEnd{{"drain", at}, {"export", at}},
		Nodes: []NodeWord{{"n1", "shred", at}, {"n2", "shred", at}}, Share: "aa", DataKey: "bb", KeysRevoked: 3,
		Usage:    []Total{{"", 1, 0, 0, "0"}, {"USD", 12, 34, 56, "1.25"}},
		AuditLog: AuditHead{"tenant/acme", 7, "cm9vdA=="}, Method: method(), NotCovered: notCovered(),
	}
}

func signed(t *testing.T, c *Certificate) (raw []byte, vkey string, signer note.Signer) {
	t.Helper()
	skey, vkey, err := note.GenerateKey(strings.NewReader(strings.Repeat("seed", 64)), "bank/erasure")
	if err != nil {
		t.Fatal(err)
	}
	if signer, err = note.NewSigner(skey); err != nil {
		t.Fatal(err)
	}
	if raw, err = note.Sign(&note.Note{Text: c.Text()}, signer); err != nil {
		t.Fatal(err)
	}
	return raw, vkey, signer
}

func TestCertificateReadsBack(t *testing.T) {
	c := sample()
	raw, vkey, _ := signed(t, c)
	got, err := VerifyCertificate(raw, vkey)
	if err != nil {
		t.Fatal(err)
	}
	if got.Text() != c.Text() || got.Reason != c.Reason || len(got.Nodes) != 2 || got.Usage[1].Cost != "1.25" {
		t.Errorf("read back: %+v", got)
	}
	if n := strings.Count(c.Text(), "\n"); n != 13+2+2+2+4+5 {
		t.Errorf("%d lines: a reason with a line break must not make a line of its own\n%s", n, c.Text())
	}
}

func TestChangedCertificateIsRefused(t *testing.T) {
	raw, vkey, signer := signed(t, sample())
	other, otherKey, err := note.GenerateKey(nil, "bank/erasure")
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := note.NewSigner(other)
	if err != nil {
		t.Fatal(err)
	}
	forge := func(text string, by note.Signer) []byte {
		out, err := note.Sign(&note.Note{Text: text}, by)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	text := sample().Text()
	for name, bad := range map[string][]byte{
		"empty": nil, "no note": []byte("hello\n"), "cut": raw[:len(raw)-20],
		"another tenant":    []byte(strings.Replace(string(raw), `"acme"`, `"apex"`, 1)),
		"a node left out":   []byte(strings.Replace(string(raw), `node: {"node":"n2"`, `node: {"node":"n9"`, 1)),
		"another signer":    forge(text, stranger),
		"another form":      forge("Bulkhead certificate of destruction v2\n"+strings.SplitN(text, "\n", 2)[1], signer),
		"a fact twice":      forge(text+"plan: \"era_2\"\n", signer),
		"an unknown fact":   forge(text+"also: \"true\"\n", signer),
		"spaces in a fact":  forge(strings.Replace(text, `plan: "`, `plan:  "`, 1), signer),
		"lines in disorder": forge(strings.Replace(text, "keys-revoked: 3\n", "", 1)+"keys-revoked: 3\n", signer),
	} {
		if c, err := VerifyCertificate(bad, vkey); err == nil {
			t.Errorf("%s: accepted: %+v", name, c)
		}
	}
	if _, err := VerifyCertificate(raw, otherKey); err == nil || !strings.Contains(err.Error(), "not signed by this key") {
		t.Errorf("another key: %v", err)
	}
	if _, err := VerifyCertificate(raw, "garbage"); err == nil {
		t.Error("a verifier key that is none was accepted")
	}
}

func FuzzVerifyCertificate(f *testing.F) {
	f.Add(sample().Text())
	f.Add(heading + "\nstep: {}\n")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := parseText(text)
		if err == nil && c.Text() != text {
			t.Errorf("two texts for one certificate:\n%q\n%q", text, c.Text())
		}
	})
}
