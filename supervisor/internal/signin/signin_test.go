package signin

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestOnlyTheAnswerToThisSignInCounts(t *testing.T) {
	r := &returned{state: "right", result: make(chan callback, 1)}
	ask := func(method, target string) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		r.ServeHTTP(w, httptest.NewRequest(method, target, nil))
		return w
	}
	for _, target := range []string{"/callback?state=wrong&code=x", "/callback?code=x", "/callback?state=&code=x", "/?state=right&code=x", "/other?state=right&code=x"} {
		if w := ask(http.MethodGet, target); w.Code != http.StatusBadRequest {
			t.Errorf("%s: %d", target, w.Code)
		}
	}
	if w := ask(http.MethodPost, "/callback?state=right&code=x"); w.Code != http.StatusBadRequest {
		t.Errorf("POST: %d", w.Code)
	}
	if len(r.result) != 0 {
		t.Fatal("one of them counted")
	}
	if w := ask(http.MethodGet, "/callback?state=right&code=first"); w.Code != http.StatusOK || strings.Contains(w.Body.String(), "first") {
		t.Errorf("the answer: %d %s", w.Code, w.Body)
	}
	ask(http.MethodGet, "/callback?state=right&code=second")
	if got := <-r.result; got.code != "first" || got.err != nil || len(r.result) != 0 {
		t.Errorf("took %+v, and %d more", got, len(r.result))
	}
}

func TestRefusedSignInSaysWhy(t *testing.T) {
	r := &returned{state: "s", result: make(chan callback, 1)}
	w := httptest.NewRecorder()
	r.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/callback?state=s&error=access_denied&error_description=<script>no</script>", nil))
	if got := <-r.result; got.err == nil || !strings.Contains(got.err.Error(), "access_denied") {
		t.Errorf("took %+v", got)
	}
	if strings.Contains(w.Body.String(), "script") {
		t.Errorf("the page repeats what it was sent: %s", w.Body)
	}
}

func TestSessionIsItsOwnersAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "below", "session.json")
	if _, err := Load(path); !errors.Is(err, ErrNone) {
		t.Errorf("without one: %v", err)
	}
	s := Session{Addrs: []string{"https://node"}, Issuer: "https://idp", ClientID: "c", Token: Token{Bearer: "b", Refresh: "r", Expiry: time.Unix(5, 0).UTC()}}
	if err := Save(path, s); err != nil {
		t.Fatal(err)
	}
	for p, want := range map[string]os.FileMode{path: 0o600, filepath.Dir(path): 0o700} {
		if st, err := os.Stat(p); err != nil || st.Mode().Perm() != want {
			t.Errorf("%s: %v, %v", p, st.Mode(), err)
		}
	}
	got, err := Load(path)
	if err != nil || got.Token != s.Token || got.Issuer != s.Issuer {
		t.Errorf("read back %+v, %v", got, err)
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(path); err == nil || !strings.Contains(err.Error(), "0600") {
		t.Errorf("a session that others may read: %v", err)
	}
	for range 2 {
		if err := Forget(path); err != nil {
			t.Error(err)
		}
	}
}
