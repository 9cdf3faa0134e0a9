package seal

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/bulkhead-ai/bulkhead"
)

func testKey(seed byte) []byte {
	key := make([]byte, KeySize)
	for i := range key {
		key[i] = seed + byte(i)
	}
	return key
}

func testBox(t *testing.T, cluster string, seed byte) *Box {
	t.Helper()
	b, err := New(cluster, testKey(seed))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestCredentialOpensOnlyWhereItBelongs(t *testing.T) {
	home := testBox(t, "one", 1)
	sealed, err := Seal(home.PublicKey(), CredentialContext("acme", "main"), []byte("sk-secret"))
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(sealed, []byte("sk-secret")) {
		t.Fatal("in clear")
	}
	if got, err := testBox(t, "one", 1).OpenCredential("acme", "main", sealed); err != nil || string(got) != "sk-secret" {
		t.Fatalf("after a restart: %q, %v", got, err)
	}
	changed := bytes.Clone(sealed)
	changed[len(changed)-1] ^= 1
	for name, c := range map[string]struct {
		box      *Box
		tenant   bulkhead.TenantID
		provider string
		sealed   []byte
	}{
		"another tenant":   {home, "globex", "main", sealed},
		"the platform":     {home, "", "main", sealed},
		"another provider": {home, "acme", "other", sealed},
		"another cluster":  {testBox(t, "two", 1), "acme", "main", sealed},
		"another key":      {testBox(t, "one", 2), "acme", "main", sealed},
		"changed":          {home, "acme", "main", changed},
		"empty":            {home, "acme", "main", nil},
		"cut":              {home, "acme", "main", sealed[:100]},
		"unknown version":  {home, "acme", "main", append([]byte{9}, sealed[1:]...)},
	} {
		if _, err := c.box.OpenCredential(c.tenant, c.provider, c.sealed); !errors.Is(err, ErrOpen) {
			t.Errorf("%s: got %v, want ErrOpen", name, err)
		}
	}
}

func TestSealRefuses(t *testing.T) {
	home := testBox(t, "one", 1)
	if _, err := Seal([]byte("short"), "credential/acme/main", nil); err == nil {
		t.Error("sealed to something that is no key")
	}
	if _, err := Seal(home.PublicKey(), "credential/acme/main", make([]byte, maxSealed)); err == nil {
		t.Error("sealed what Open would refuse")
	}
}

func TestWeakKeysAreRefused(t *testing.T) {
	for name, key := range map[string][]byte{
		"none": nil, "empty": {}, "short": testKey(1)[:31], "long": append(testKey(1), 1),
		"zero": make([]byte, KeySize), "repeated": bytes.Repeat([]byte{'x'}, KeySize),
	} {
		if _, err := New("one", key); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := New("", testKey(1)); err == nil {
		t.Error("accepted a cluster without a name")
	}
}

func TestLoadFile(t *testing.T) {
	want := testKey(1)
	for name, c := range map[string]struct {
		content []byte
		mode    os.FileMode
		ok      bool
	}{
		"raw":         {want, 0o600, true},
		"hex":         {[]byte(hex.EncodeToString(want) + "\n"), 0o600, true},
		"base64":      {[]byte(base64.StdEncoding.EncodeToString(want)), 0o400, true},
		"readable":    {want, 0o640, false},
		"by others":   {want, 0o604, false},
		"empty":       {nil, 0o600, false},
		"short hex":   {[]byte("abcd"), 0o600, false},
		"zero":        {make([]byte, KeySize), 0o600, false},
		"zero in hex": {[]byte(hex.EncodeToString(make([]byte, KeySize))), 0o600, false},
		"something":   {[]byte("not a key at all, really not one"), 0o600, true}, // 32 bytes are 32 bytes
		"prose":       {[]byte("this is no key, it is prose"), 0o600, false},
	} {
		path := filepath.Join(t.TempDir(), "key")
		if err := os.WriteFile(path, c.content, 0o600); err != nil {
			t.Fatal(err)
		}
		os.Chmod(path, c.mode)
		key, err := Source{File: path}.Load()
		if (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
		if c.ok && name != "something" && !bytes.Equal(key, want) {
			t.Errorf("%s: another key", name)
		}
	}
}

func TestLoadFileRefusesLinksAndPipes(t *testing.T) {
	dir := t.TempDir()
	os.WriteFile(filepath.Join(dir, "key"), testKey(1), 0o600)
	os.Symlink("key", filepath.Join(dir, "link"))
	os.Mkdir(filepath.Join(dir, "dir"), 0o700)
	for _, name := range []string{"link", "dir", "none"} {
		if _, err := (Source{File: filepath.Join(dir, name)}).Load(); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestLoadCreatesOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	source := Source{File: path, Create: true}
	keys := make([][]byte, 8)
	var loading sync.WaitGroup
	for i := range keys {
		loading.Go(func() { keys[i], _ = source.Load() })
	}
	loading.Wait()
	for i, key := range keys {
		if len(key) != KeySize || !bytes.Equal(key, keys[0]) {
			t.Fatalf("caller %d got another key", i)
		}
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Fatalf("mode %v, %v", st.Mode(), err)
	}
	if entries, _ := os.ReadDir(filepath.Dir(path)); len(entries) != 1 {
		t.Fatalf("left over: %v", entries)
	}
	if _, err := (Source{File: filepath.Join(t.TempDir(), "key")}).Load(); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("without Create: %v", err)
	}
}

func TestLoadCredential(t *testing.T) {
	dir := t.TempDir()
	os.WriteFile(filepath.Join(dir, "cluster-key"), testKey(1), 0o440)
	t.Setenv("CREDENTIALS_DIRECTORY", dir)
	if key, err := (Source{Credential: "cluster-key"}).Load(); err != nil || !bytes.Equal(key, testKey(1)) {
		t.Fatal(err)
	}
	for _, s := range []Source{{Credential: "../cluster-key"}, {Credential: "other"}, {}, {File: "x", Credential: "y"}} {
		if _, err := s.Load(); err == nil {
			t.Errorf("%+v: accepted", s)
		}
	}
	t.Setenv("CREDENTIALS_DIRECTORY", "")
	if _, err := (Source{Credential: "cluster-key"}).Load(); err == nil {
		t.Error("accepted without systemd")
	}
}
