package chat

import (
	"context"
	"crypto/sha256"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/configs/manifest"
	"github.com/bulkhead-ai/bulkhead/worker/control"
)

var annID = control.PersonID(sha256.Sum256([]byte("https://login.bank.example\x00ann")))

// ann is a person at the place app/prod/bot, for an hour, with changes.
func ann(change func(*control.Member)) control.Head {
	m := &control.Member{Project: "app", Env: "prod", Account: "bot", Owner: "ann@bank.example", ExpiresAt: time.Now().Add(time.Hour).UnixMilli()}
	if change != nil {
		change(m)
	}
	return control.Head{Request: bulkhead.NewRequestID(time.Now()), Key: annID, Member: m}
}

// doAs sends one request with a head of its own.
func (s *shop) doAs(head control.Head, c call) answer {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	r := s.request(ctx, c)
	head.Set(r.Header)
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, string(body), err}
}

// welcome lets people into prod, which is for services unless somebody says so.
func welcome(p *control.Policy) {
	yes := true
	for name, project := range p.Projects {
		for env, spec := range project.Environments {
			spec.PersonalKeys = &yes
			project.Environments[env] = spec
		}
		p.Projects[name] = project
	}
}

// TestPersonIsBooked: a person's request is served and booked at the place, under
// the person's id and address.
func TestPersonIsBooked(t *testing.T) {
	s := newShop(t, setup{policy: welcome, main: reply(200, completion(goodUsage))})
	if a := s.doAs(ann(nil), call{body: solo}); a.status != 200 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	r := s.last(1)
	if r.Outcome != bulkhead.Served || r.Key != annID || r.KeyOwner != "ann@bank.example" || r.User != "ann@bank.example" ||
		r.Project != "app" || r.Env != "prod" || r.Account != "bot" || r.Usage.InputTokens() != 5 {
		t.Errorf("receipt %+v", r)
	}
	if a := s.doAs(ann(nil), call{body: solo, header: map[string]string{control.HeaderUser: "bob@bank.example"}}); a.status != 200 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	if r := s.last(2); r.User != "bob@bank.example" || r.KeyOwner != "ann@bank.example" {
		t.Errorf("with a tag of its own: user %s, owner %s", r.User, r.KeyOwner)
	}
	if a := s.doAs(ann(nil), call{endpoint: "models"}); a.status != 200 || !strings.Contains(a.body, `"solo"`) {
		t.Errorf("models: %d %s", a.status, a.body)
	}
}

// TestPersonIsRefused: a person has no more rights than a key at the place, and
// none where the place is not.
func TestPersonIsRefused(t *testing.T) {
	upstream := new(seen)
	s := newShop(t, setup{policy: welcome, main: upstream.then(reply(200, completion(goodUsage)))})
	n := 0
	for name, row := range map[string]struct {
		change func(*control.Member)
		body   string
		status int
		code   string
		booked bool // at the place
	}{
		"no project":        {func(m *control.Member) { m.Project = "other" }, solo, 403, "place_not_found", false},
		"no environment":    {func(m *control.Member) { m.Env = "sandbox" }, solo, 403, "place_not_found", false},
		"no account":        {func(m *control.Member) { m.Account = "people" }, solo, 403, "place_not_found", false},
		"expired":           {func(m *control.Member) { m.ExpiresAt = time.Now().Add(-time.Second).UnixMilli() }, solo, 401, "invalid_token", true},
		"environment model": {func(m *control.Member) { m.Env = "test" }, chat, 403, "model_not_allowed", true},
	} {
		n++
		a := s.doAs(ann(row.change), call{body: row.body})
		if a.status != row.status || a.code() != row.code {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
		r := s.last(n)
		if (r.Key == annID) != row.booked || (r.Project != "") != row.booked {
			t.Errorf("%s: receipt %+v", name, r)
		}
	}
	if upstream.count() != 0 {
		t.Errorf("%d requests went upstream", upstream.count())
	}
}

// TestPersonUnderLimits: the account's limit counts persons and keys together.
func TestPersonUnderLimits(t *testing.T) {
	two := int64(2)
	s := newShop(t, setup{main: reply(200, completion(goodUsage)), policy: func(p *control.Policy) {
		welcome(p)
		p.Accounts[0].Spec.Limits = &manifest.Limits{Daily: &manifest.Window{Requests: &two}}
	}})
	if a := s.do(call{body: solo}); a.status != 200 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	if a := s.doAs(ann(nil), call{body: solo}); a.status != 200 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	if a := s.doAs(ann(nil), call{body: solo}); a.status != 429 {
		t.Errorf("a third one: %d %s", a.status, a.body)
	}
}

// TestNoPeopleInProd: an environment that is for services takes nobody else.
func TestNoPeopleInProd(t *testing.T) {
	s := newShop(t, setup{main: reply(200, completion(goodUsage))})
	if a := s.doAs(ann(nil), call{body: solo}); a.status != 403 || a.code() != "personal_key_not_allowed" {
		t.Errorf("%d %s", a.status, a.body)
	}
}

// TestPersonNeverTakesAKeysPlace: the id of a person that is also a key's, or a
// key's id with a person's texts, is refused before anything is looked up.
func TestPersonNeverTakesAKeysPlace(t *testing.T) {
	s := newShop(t, setup{policy: func(p *control.Policy) {
		welcome(p)
		p.Keys = append(p.Keys, control.Key{ID: annID, Project: "app", Env: "prod", Account: "bot", Owner: "o"})
	}})
	head := ann(nil)
	head.Key = "key_bot"
	if a := s.doAs(head, call{body: solo}); a.status != 500 {
		t.Errorf("a key's id with a member: %d %s", a.status, a.body)
	}
	head = ann(nil)
	head.Member = nil
	if a := s.doAs(head, call{body: solo}); a.status != 500 {
		t.Errorf("a person's id without one: %d %s", a.status, a.body)
	}
}
