package seal

import (
	"bytes"
	"errors"
	"testing"

	"github.com/bulkhead-ai/bulkhead"
)

func TestDataKeyOpensOnlyWhereItBelongs(t *testing.T) {
	home, share := testBox(t, "one", 1), NewShare()
	key, wrapped, err := home.NewDataKey(t.Context(), "acme", share)
	if err != nil {
		t.Fatal(err)
	}
	if len(key) != KeySize || bytes.Contains(wrapped, key) || bytes.Contains(wrapped, share) || bytes.Equal(share, NewShare()) {
		t.Fatalf("key of %d bytes, or in clear, or two equal shares", len(key))
	}
	if got, err := testBox(t, "one", 1).UnwrapDataKey(t.Context(), "acme", wrapped, share); err != nil || !bytes.Equal(got, key) {
		t.Fatalf("after a restart: %v", err)
	}
	changed := bytes.Clone(wrapped)
	changed[len(changed)-1] ^= 1
	for name, c := range map[string]struct {
		box            *Box
		tenant         bulkhead.TenantID
		wrapped, share []byte
	}{
		"another tenant":  {home, "globex", wrapped, share},
		"another cluster": {testBox(t, "two", 1), "acme", wrapped, share},
		"another key":     {testBox(t, "one", 2), "acme", wrapped, share},
		"another share":   {home, "acme", wrapped, NewShare()},
		"zero share":      {home, "acme", wrapped, make([]byte, ShareSize)},
		"changed":         {home, "acme", changed, share},
		"empty":           {home, "acme", nil, share},
		"cut":             {home, "acme", wrapped[:10], share},
		"unknown version": {home, "acme", append([]byte{9}, wrapped[1:]...), share},
	} {
		if _, err := c.box.UnwrapDataKey(t.Context(), c.tenant, c.wrapped, c.share); !errors.Is(err, ErrOpen) {
			t.Errorf("%s: got %v, want ErrOpen", name, err)
		}
	}
	for name, share := range map[string][]byte{"none": nil, "short": share[:31], "its id and more": append(ShareID(share), 1)} {
		if _, _, err := home.NewDataKey(t.Context(), "acme", share); err == nil {
			t.Errorf("share %s: accepted", name)
		}
		if _, err := home.UnwrapDataKey(t.Context(), "acme", wrapped, share); err == nil {
			t.Errorf("share %s: opens", name)
		}
	}
	if _, _, err := home.NewDataKey(t.Context(), "a\x00b", share); err == nil {
		t.Error("a tenant that is no name has a key")
	}
}

// TestClusterKeyAloneOpensNothing takes the outer lock off, as whoever has a
// snapshot and the cluster key can, and finds no key inside.
func TestClusterKeyAloneOpensNothing(t *testing.T) {
	home, share := testBox(t, "one", 1), NewShare()
	key, wrapped, err := home.NewDataKey(t.Context(), "acme", share)
	if err != nil {
		t.Fatal(err)
	}
	_, aad, err := home.shareRoot("acme", share)
	if err != nil {
		t.Fatal(err)
	}
	inner, err := home.root.Decrypt(t.Context(), wrapped, aad)
	if err != nil {
		t.Fatalf("the test does not take the outer lock off: %v", err)
	}
	if bytes.Contains(inner, key) || bytes.Contains(inner, share) {
		t.Fatal("the data key or the share lies under the cluster key alone")
	}
	if _, err := home.root.Decrypt(t.Context(), inner, aad); !errors.Is(err, ErrOpen) {
		t.Fatalf("the cluster key opens the inner lock: %v", err)
	}
}
