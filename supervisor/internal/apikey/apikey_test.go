package apikey

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"regexp"
	"strings"
	"testing"
)

func TestNewKeyParses(t *testing.T) {
	form := regexp.MustCompile(`^bh_[0-9A-Za-z]{49}$`)
	seen := map[string]bool{}
	for range 200 {
		secret, hash := NewKey()
		if !form.MatchString(secret) {
			t.Fatalf("key %q has not the documented form", secret)
		}
		if err := ParseKey([]byte(secret)); err != nil {
			t.Fatalf("ParseKey(%q) = %v", secret, err)
		}
		if hash != sha256.Sum256([]byte(secret)) {
			t.Fatalf("hash of %q is not its SHA-256", secret)
		}
		if seen[secret] {
			t.Fatalf("key %q came twice", secret)
		}
		seen[secret] = true
	}
}

// The golden key pins the form: keys that exist must stay keys.
func TestGoldenKey(t *testing.T) {
	const golden = "bh_0000000000000000000000000000000000000000001" + "1NET42"
	err := ParseKey([]byte(golden))
	if err != nil {
		t.Fatalf("ParseKey(%q) = %v", golden, err)
	}
}

func TestParseKeyRefuses(t *testing.T) {
	secret, _ := NewKey()
	flip := func(i int) string {
		b := []byte(secret)
		if b[i] == 'a' {
			b[i] = 'b'
		} else {
			b[i] = 'a'
		}
		return string(b)
	}
	for name, key := range map[string]string{
		"empty":            "",
		"prefix only":      Prefix,
		"short":            secret[:Len-1],
		"long":             secret + "a",
		"other prefix":     "sk_" + secret[3:],
		"upper prefix":     "BH_" + secret[3:],
		"first char":       flip(3),
		"last body char":   flip(Len - sumLen - 1),
		"checksum":         flip(Len - 1),
		"not alphanumeric": secret[:10] + "-" + secret[11:],
		"NUL":              secret[:10] + "\x00" + secret[11:],
		"high bit":         secret[:10] + "\xe9" + secret[11:],
	} {
		if err := ParseKey([]byte(key)); !errors.Is(err, ErrForm) {
			t.Errorf("%s: ParseKey(%q) = %v, want ErrForm", name, key, err)
		}
	}
}

func TestDisplayHidesTheSecret(t *testing.T) {
	secret, _ := NewKey()
	d := Display(secret)
	if strings.Contains(d, secret[3 : Len-sumLen][:4]) || len(d) != len(Prefix)+3+4 {
		t.Errorf("Display shows %q of %q", d, secret)
	}
	if got := Display("short"); got != "bh_..." {
		t.Errorf("Display of a malformed key = %q", got)
	}
}

func TestCheckingDoesNotAllocate(t *testing.T) {
	secret, _ := NewKey()
	key := []byte(secret)
	var hash [32]byte
	if n := testing.AllocsPerRun(1000, func() {
		if ParseKey(key) == nil {
			hash = HashKey(key)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if hash != sha256.Sum256(key) {
		t.Error("wrong hash")
	}
}

func FuzzParseKey(f *testing.F) {
	secret, _ := NewKey()
	f.Add([]byte(secret))
	f.Add([]byte("bh_"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, key []byte) {
		if ParseKey(key) != nil {
			return
		}
		if len(key) != Len || !bytes.HasPrefix(key, []byte(Prefix)) {
			t.Fatalf("accepted %q", key)
		}
		for i := range key { // a single wrong character never passes
			other := bytes.Clone(key)
			other[i] ^= 1
			if ParseKey(other) == nil {
				t.Fatalf("accepted %q and %q", key, other)
			}
		}
	})
}

func BenchmarkParseAndHash(b *testing.B) {
	secret, _ := NewKey()
	key := []byte(secret)
	b.ReportAllocs()
	for b.Loop() {
		if ParseKey(key) != nil {
			b.Fatal("refused")
		}
		HashKey(key)
	}
}
