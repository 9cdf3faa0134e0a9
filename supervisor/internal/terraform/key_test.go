package terraform_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin/admintest"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin/wire"
	"github.com/hashicorp/terraform-plugin-go/tftypes"
)

// withAccount is a fixture with the service account acme/web/bot.
func withAccount(t *testing.T) (*admintest.Fixture, *core) {
	t.Helper()
	f := admintest.New(t, nil)
	c := newCore(t, f)
	c.create("bulkhead_tenant", `{"name": "acme", "owner": "owner@acme.example", "cost_center": "CC-1"}`)
	c.create("bulkhead_project", `{"name": "web", "tenant": "acme", "environments": {"prod": {}, "test": {"max_key_life": "48h"}}}`)
	c.create("bulkhead_service_account", `{"name": "bot", "tenant": "acme", "project": "web", "owner": "dev@acme.example", "service": "Bot"}`)
	return f, c
}

func keyConfig(more string) string {
	return `{"tenant": "acme", "project": "web", "env": "prod", "service_account": "bot"` + more + `}`
}

// stored is a key as the cluster has it.
func stored(t *testing.T, f *admintest.Fixture, state tftypes.Value) command.Key {
	t.Helper()
	k, ok := f.Cluster.State().Key(bulkhead.KeyID(str(t, state, "id")))
	if !ok {
		t.Fatalf("there is no key %s", str(t, state, "id"))
	}
	return k
}

// opens reports whether the key in the state is the one that the cluster knows.
func opens(t *testing.T, f *admintest.Fixture, state tftypes.Value) bool {
	t.Helper()
	sum := sha256.Sum256([]byte(str(t, state, "key")))
	return bytes.Equal(sum[:], stored(t, f, state).Hash)
}

func TestKeyLife(t *testing.T) {
	f, c := withAccount(t)
	config := keyConfig(`, "label": "ci", "models": ["b", "a"], "endpoints": ["chat/completions"], "sources": ["192.0.2.7", "10.1.2.3/8"], "expires_at": "2100-01-01T01:00:00+01:00"`)
	state := c.create("bulkhead_key", config)
	if !opens(t, f, state) {
		t.Error("the key in the state is not the one that was made")
	}
	k := stored(t, f, state)
	if k.Owner != "dev@acme.example" || k.Label != "ci" || fmt.Sprint(k.Sources) != "[192.0.2.7/32 10.0.0.0/8]" || k.ExpiresAt != time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC).UnixMilli() {
		t.Errorf("made: %+v", k)
	}
	for name, want := range map[string]string{"owner": "dev@acme.example", "service": "Bot", "display": k.Display, "key_expires_at": "2100-01-01T00:00:00Z"} {
		if got := str(t, state, name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	read := c.read("bulkhead_key", state)
	if !read.Equal(state) {
		t.Errorf("read\n%s\nafter\n%s", read, state)
	}
	c.unchanged("bulkhead_key", config, read)
	elsewhere := strings.Replace(config, "2100-01-01T01:00:00+01:00", "2100-01-01T00:00:00Z", 1) // the same end
	if read = c.update("bulkhead_key", elsewhere, read); str(t, read, "id") != string(k.ID) {
		t.Error("the same end in another zone made another key")
	}

	// Another scope is another key; the old one ends.
	state = c.update("bulkhead_key", strings.Replace(config, `"b", "a"`, `"a"`, 1), read)
	if again := stored(t, f, state); again.ID == k.ID || len(again.Models) != 1 {
		t.Errorf("made: %+v", again)
	}
	if old := stored(t, f, read); old.RevokedAt == 0 {
		t.Error("the key with the old scope is still valid")
	}
	c.destroy("bulkhead_key", state)
	if k := stored(t, f, state); k.RevokedAt == 0 {
		t.Error("a destroyed key is still valid")
	}
	if got := c.read("bulkhead_key", state); !got.IsNull() {
		t.Errorf("it is revoked, but was read: %s", got)
	}
}

func TestKeyRotates(t *testing.T) {
	f, c := withAccount(t)
	first := c.create("bulkhead_key", keyConfig(`, "rotate_when": {"quarter": "1"}`))
	// What counts at the next rotation changes nothing before it.
	same := c.update("bulkhead_key", keyConfig(`, "rotate_when": {"quarter": "1"}, "overlap": "1h"`), first)
	if str(t, same, "id") != str(t, first, "id") || !opens(t, f, same) {
		t.Errorf("the key was rotated, or lost: %s", same)
	}
	second := c.update("bulkhead_key", keyConfig(`, "rotate_when": {"quarter": "2"}, "overlap": "1h"`), same)
	if str(t, second, "id") == str(t, first, "id") || !opens(t, f, second) {
		t.Errorf("it was not rotated: %s", second)
	}
	old := stored(t, f, first)
	if left := time.Until(time.UnixMilli(old.ExpiresAt)); old.RevokedAt != 0 || left < 50*time.Minute || left > time.Hour {
		t.Errorf("the old key ends in %s, revoked at %d; want an hour's overlap", left, old.RevokedAt)
	}
	c.unchanged("bulkhead_key", keyConfig(`, "rotate_when": {"quarter": "2"}, "overlap": "1h"`), c.read("bulkhead_key", second))

	third := c.update("bulkhead_key", keyConfig(`, "rotate_when": {"quarter": "3"}, "overlap": "0s"`), second)
	if k := stored(t, f, second); k.RevokedAt == 0 && k.ExpiresAt > time.Now().UnixMilli() {
		t.Error("an overlap of none leaves the old key valid")
	}
	c.destroy("bulkhead_key", third)
	for i, state := range []tftypes.Value{first, second, third} {
		if k := stored(t, f, state); k.RevokedAt == 0 && k.ExpiresAt > time.Now().UnixMilli() {
			t.Errorf("key %d of 3 outlives the destroy", i+1)
		}
	}
}

func TestWrappedKeyIsNotInTheState(t *testing.T) {
	f, c := withAccount(t)
	config := keyConfig(`, "wrap_for": "10m", "rotate_when": {"n": "1"}`)
	state := c.create("bulkhead_key", config)
	for n := 1; n <= 2; n++ {
		if got := str(t, state, "key"); got != "" || strings.Contains(strings.ReplaceAll(state.String(), str(t, state, "display"), ""), "bh_") {
			t.Fatalf("the key is in the state: %s", state)
		}
		got := unwrap(t, f, str(t, state, "link_token"))
		sum := sha256.Sum256([]byte(got.Key))
		if !bytes.Equal(sum[:], stored(t, f, state).Hash) {
			t.Errorf("the link leads to another key")
		}
		if str(t, state, "link_expires_at") == "" {
			t.Error("nothing says when the link ends")
		}
		c.unchanged("bulkhead_key", strings.Replace(config, `"1"`, fmt.Sprintf("%q", fmt.Sprint(n)), 1), c.read("bulkhead_key", state))
		state = c.update("bulkhead_key", keyConfig(`, "wrap_for": "10m", "rotate_when": {"n": "2"}`), state)
	}
}

func unwrap(t *testing.T, f *admintest.Fixture, token string) (out wire.Unwrapped) {
	t.Helper()
	body, err := json.Marshal(wire.Unwrap{Token: token})
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.Post(f.URL+"/admin/v1/unwrap", "application/json", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&out); err != nil || out.Key == "" {
		t.Fatalf("unwrap: %s %v", resp.Status, err)
	}
	return out
}

func TestKeysThatEndedAreMadeAnew(t *testing.T) {
	f, c := withAccount(t)
	revoked := c.create("bulkhead_key", keyConfig(""))
	propose(t, f, &command.RevokeKey{ID: bulkhead.KeyID(str(t, revoked, "id"))})
	if got := c.read("bulkhead_key", revoked); !got.IsNull() {
		t.Errorf("somebody revoked it, but was read: %s", got)
	}
	// A policy ends this one, though nobody wrote when.
	ends := c.create("bulkhead_key", strings.Replace(keyConfig(""), "prod", "test", 1))
	end, err := time.Parse(time.RFC3339, str(t, ends, "key_expires_at"))
	if left := time.Until(end); err != nil || left < 47*time.Hour || left > 48*time.Hour {
		t.Errorf("it ends in %s (%v), want 48 h", left, err)
	}
	c.unchanged("bulkhead_key", strings.Replace(keyConfig(""), "prod", "test", 1), c.read("bulkhead_key", ends))
	past := c.create("bulkhead_key", keyConfig(`, "expires_at": "2100-01-01T00:00:00Z"`))
	k := stored(t, f, past)
	end = time.UnixMilli(k.CreatedAt + 50) // of the cluster's clock, which is a few commands further
	propose(t, f, &command.RotateKey{Old: k.ID, OldExpiresAt: end.UnixMilli(), Key: successor(k)})
	time.Sleep(time.Until(end))
	if k = stored(t, f, past); k.RevokedAt != 0 {
		t.Fatal("it was revoked, and should have expired")
	}
	if got := c.read("bulkhead_key", past); !got.IsNull() {
		t.Errorf("it has expired, but was read: %s", got)
	}
}

func successor(k command.Key) command.Key {
	k.ID, k.Hash = "key_ffffffffffffffffffff", bytes.Repeat([]byte{7}, 32)
	return k
}

func TestKeyImport(t *testing.T) {
	_, c := withAccount(t)
	config := keyConfig(`, "label": "ci", "models": ["b", "a"], "sources": ["10.0.0.0/8"], "expires_at": "2100-01-01T01:00:00+01:00"`)
	state := c.create("bulkhead_key", config)
	got, err := c.imported("bulkhead_key", str(t, state, "id"))
	if err != nil {
		t.Fatal(err)
	}
	if str(t, got, "key") != "" {
		t.Error("an import knows the key")
	}
	after, err := c.apply("bulkhead_key", c.value("bulkhead_key", config), got)
	if err != nil || str(t, after, "id") != str(t, state, "id") || str(t, after, "expires_at") == "" {
		t.Errorf("an imported key is not kept as it is: %s %v", after, err)
	}
	// Another end than the one that it has is another key, though none was in the state.
	other := strings.Replace(config, "2100", "2101", 1)
	if _, replace, err := c.plan("bulkhead_key", c.value("bulkhead_key", other), got); err != nil || !replace {
		t.Errorf("another end is not another key: %v", err)
	}
	if got, err := c.imported("bulkhead_key", "key_0000"); err == nil && !got.IsNull() {
		t.Errorf("imported what does not exist: %s", got)
	}
}

// TestKeyWhoseAnswerWasLost: nobody has it, and whoever runs the apply is told
// which one to revoke.
func TestKeyWhoseAnswerWasLost(t *testing.T) {
	f, _ := withAccount(t)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got := httptest.NewRecorder()
		f.API.ServeHTTP(got, r)
		if got.Code == http.StatusCreated {
			panic(http.ErrAbortHandler)
		}
		w.WriteHeader(got.Code)
		w.Write(got.Body.Bytes())
	}))
	defer server.Close()
	c := bareCore(t, func(string) string { return "" })
	if err := c.configure(fmt.Sprintf(`{"addrs": [%q], "token": %q}`, server.URL, admintest.Token)); err != nil {
		t.Fatal(err)
	}
	bad := c.refused("bulkhead_key", c.value("bulkhead_key", keyConfig("")), c.null("bulkhead_key"))
	made := 0
	f.Cluster.State().View().RangeKeys(func(k *command.Key) bool {
		if made++; !strings.Contains(bad.Error(), string(k.ID)) {
			t.Errorf("%s was made, and the error says %s", k.ID, bad)
		}
		return true
	})
	if made != 1 {
		t.Errorf("%d keys were made, want 1", made)
	}
}
