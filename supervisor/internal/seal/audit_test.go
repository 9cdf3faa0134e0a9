package seal

import (
	"testing"

	"golang.org/x/mod/sumdb/note"
)

func TestAuditNotesVerifyWithThePublicKeyAlone(t *testing.T) {
	const name = "bulkhead.example/audit"
	signer, err := testBox(t, "one", 1).AuditSigner(name)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := note.Sign(&note.Note{Text: "log\n7\nroot\n"}, signer)
	if err != nil {
		t.Fatal(err)
	}
	opens := func(b *Box, name string) error {
		vkey, err := b.AuditVerifier(name)
		if err != nil {
			t.Fatal(err)
		}
		v, err := note.NewVerifier(vkey)
		if err != nil {
			t.Fatal(err)
		}
		_, err = note.Open(signed, note.VerifierList(v))
		return err
	}
	if err := opens(testBox(t, "one", 1), name); err != nil {
		t.Fatalf("on another node of the cluster: %v", err)
	}
	for what, b := range map[string]*Box{"another cluster": testBox(t, "two", 1), "another key": testBox(t, "one", 2)} {
		if opens(b, name) == nil {
			t.Errorf("%s: its key verifies", what)
		}
	}
	if opens(testBox(t, "one", 1), "bulkhead.example/certificates") == nil {
		t.Error("another name's key verifies")
	}
	for _, bad := range []string{"", "a b", "a+b", "a\nb"} {
		if _, err := testBox(t, "one", 1).AuditSigner(bad); err == nil {
			t.Errorf("name %q: accepted", bad)
		}
		if _, err := testBox(t, "one", 1).AuditVerifier(bad); err == nil {
			t.Errorf("name %q: has a verifier", bad)
		}
	}
}
