package apikey

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
)

const linkedKey = "key_0123456789abcdef0123"

func newLink(t testing.TB) Link {
	t.Helper()
	l, err := NewLink(linkedKey)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestLinkHandsOver(t *testing.T) {
	for range 50 {
		l := newLink(t)
		key, _ := NewKey()
		sealed, err := l.Seal(key)
		if err != nil {
			t.Fatal(err)
		}
		back, err := ParseLink(l.Token())
		if err != nil || back != l || len(l.Token()) != LinkLen {
			t.Fatalf("ParseLink(%q) = %v, %v", l.Token(), back, err)
		}
		if got, err := back.Open(sealed); got != key || err != nil {
			t.Fatalf("Open = %q, %v", got, err)
		}
		if back.KeyID() != linkedKey || back.ID() == "" || !bytes.Equal(back.Hash(), l.Hash()) {
			t.Fatalf("link of %s, hash %x", back.KeyID(), back.Hash())
		}
	}
}

// TestNothingStoredOpens holds for everything that is not the token itself.
func TestNothingStoredOpens(t *testing.T) {
	l, other := newLink(t), newLink(t)
	key, _ := NewKey()
	sealed, err := l.Seal(key)
	if err != nil {
		t.Fatal(err)
	}
	stored := string(sealed) + string(l.Hash()) + l.ID() + l.String() + fmt.Sprintf("%v %+v %#v %s", l, l, l, l)
	secret := l.Token()[len(LinkPrefix)+linkIDLen : LinkLen-sumLen]
	for _, part := range []string{key, key[3:20], secret, string(l.secret[:])} {
		if strings.Contains(stored, part) {
			t.Errorf("what is stored or printed of a link holds %q", part)
		}
	}
	if _, err := other.Open(sealed); !errors.Is(err, ErrLink) {
		t.Errorf("another link of the same key opens: %v", err)
	}
	wrong := l
	copy(wrong.secret[:], l.Hash())
	if _, err := wrong.Open(sealed); !errors.Is(err, ErrLink) {
		t.Errorf("the stored hash opens: %v", err)
	}
	for i := range sealed {
		sealed[i] ^= 1
		if _, err := l.Open(sealed); !errors.Is(err, ErrLink) {
			t.Fatalf("changed at byte %d: %v", i, err)
		}
		sealed[i] ^= 1
	}
}

func TestParseLinkRefuses(t *testing.T) {
	token := newLink(t).Token()
	key, _ := NewKey()
	for name, s := range map[string]string{
		"empty": "", "a key": key, "short": token[1:], "long": token + "0",
		"other prefix": "bhx_" + token[4:], "id in capitals": token[:4] + strings.Repeat("A", linkIDLen) + token[4+linkIDLen:],
		"too large": token[:4+linkIDLen] + strings.Repeat("z", bodyLen) + token[LinkLen-sumLen:],
		"no digit":  token[:30] + "-" + token[31:],
	} {
		if _, err := ParseLink(s); !errors.Is(err, ErrLink) {
			t.Errorf("%s: ParseLink(%q) = %v", name, s, err)
		}
	}
	for _, id := range []string{"", "key_", "key_0123456789ABCDEF0123", "0123456789abcdef0123", "key_0123456789abcdef01234"} {
		if _, err := NewLink(id); err == nil {
			t.Errorf("a link of key %q", id)
		}
	}
}

func FuzzParseLink(f *testing.F) {
	f.Add(newLink(f).Token())
	f.Add("bhl_")
	f.Fuzz(func(t *testing.T, token string) {
		l, err := ParseLink(token)
		if err == nil && l.Token() != token {
			t.Fatalf("%q reads as %q", token, l.Token())
		}
	})
}
