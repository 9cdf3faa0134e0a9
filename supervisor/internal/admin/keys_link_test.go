package admin_test

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/audit"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/access"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin/wire"
)

// TestLink follows a key from its creator to its one reader, and looks for the
// two secrets in everything that was kept or said on the way.
func TestLink(t *testing.T) {
	f := startTeam(t)
	var made wire.KeyCreated
	raw := f.must(201, &made, "POST", "/admin/v1/keys", wire.CreateKey{Tenant: "acme", Project: "web", Env: "prod", ServiceAccount: "bot", WrapSeconds: 3600}, as("tok-owner")...)
	if made.Key != "" || strings.Contains(raw, "bh_") || made.Link != "/admin/v1/unwrap#"+made.LinkToken || time.Until(made.ExpiresAt) > time.Hour || time.Until(made.ExpiresAt) < 50*time.Minute {
		t.Fatalf("made %s", raw)
	}
	events := f.Trail.Taken()
	kept := slices.Clone(events)
	texts := []string{f.stateText(), f.said()}
	var got wire.Unwrapped
	f.must(200, &got, "POST", "/admin/v1/unwrap", wire.Unwrap{Token: made.LinkToken}, "Authorization", "")
	if got.ID != made.ID || !strings.HasPrefix(got.Key, "bh_") {
		t.Fatalf("unwrapped %+v", got)
	}
	events = f.Trail.Taken()
	if len(events) != 2 || events[0].Phase != audit.Intent || events[1].Result != audit.Done || events[0].Log != "tenant/acme" ||
		events[0].Action != "unwrap-key" || events[0].Object != "Key "+string(made.ID) || events[0].Actor.Method != access.ByNobody {
		t.Errorf("events of the reading: %+v", events)
	}
	again := f.must(404, nil, "POST", "/admin/v1/unwrap", wire.Unwrap{Token: made.LinkToken}, "Authorization", "")
	if !strings.Contains(again, `"wrap_not_found"`) {
		t.Errorf("second reading: %s", again)
	}
	kept = append(kept, events...)
	events = f.Trail.Taken()
	if last := events[len(events)-1]; len(events) != 1 || last.Result != audit.Denied || last.Object != "Key "+string(made.ID) || last.Log != "tenant/acme" || last.Code != "wrap_not_found" {
		t.Errorf("event of the second reading: %+v", last)
	}
	f.must(404, nil, "POST", "/admin/v1/unwrap", wire.Unwrap{Token: made.LinkToken}, "Authorization", "")
	if more := f.Trail.Taken(); len(more) != 0 {
		t.Errorf("a third reading within a minute is told again: %+v", more)
	}
	for _, guess := range []string{"", "x", "bhl_" + strings.Repeat("0", 69), got.Key, strings.Replace(made.LinkToken, "bhl_", "bhx_", 1)} {
		if other := f.must(404, nil, "POST", "/admin/v1/unwrap", wire.Unwrap{Token: guess}, "Authorization", ""); other != again {
			t.Errorf("a guess is answered %s, a spent link %s", other, again)
		}
	}
	if more := f.Trail.Taken(); len(more) != 0 || len(f.refused) < 5 {
		t.Errorf("guesses: %d counted, events %+v", len(f.refused), more)
	}
	for _, path := range []string{got.Key, made.LinkToken[:64], "bh_" + got.Key} {
		for _, verb := range []string{"/revoke", "/rotate"} {
			texts = append(texts, f.must(404, nil, "POST", "/admin/v1/keys/"+path[:min(len(path), 64)]+verb, nil))
		}
	}
	for _, body := range []string{`{"token":"` + made.LinkToken + `","more":1}`, `{"token":"` + made.LinkToken, `"` + made.LinkToken + `"`, `{"token":["` + made.LinkToken + `"]}`, `{"token":"` + strings.Repeat(made.LinkToken, 8) + `"}`} {
		status, answer := f.ask("POST", "/admin/v1/unwrap", body)
		if status != 422 && status != 400 {
			t.Errorf("a body that is none: %d %s", status, answer)
		}
		texts = append(texts, answer)
	}
	eventText, err := json.Marshal(append(append(kept, events...), f.Trail.Taken()...))
	if err != nil {
		t.Fatal(err)
	}
	noCanary(t, append(texts, f.stateText(), f.said(), string(eventText), again), got.Key, made.LinkToken)
}

// said is everything in the log of the process.
func (f *team) said() string {
	var b strings.Builder
	for _, e := range f.log.All() {
		raw, _ := json.Marshal(e.ContextMap())
		b.WriteString(e.Message + string(raw) + "\n")
	}
	return b.String()
}

// stateText is everything in the replicated state.
func (f *team) stateText() string {
	var b strings.Builder
	if _, err := f.Cluster.State().View().WriteTo(&b); err != nil {
		f.t.Fatal(err)
	}
	return b.String()
}

// noCanary looks for secrets in their usual disguises, and for the random middle
// of each, which no cut or quoted form would spare.
func noCanary(t *testing.T, texts []string, secrets ...string) {
	t.Helper()
	for _, s := range secrets {
		middle := s[len(s)-40 : len(s)-8]
		forms := []string{
			s, middle, url.QueryEscape(middle), hex.EncodeToString([]byte(s)), hex.EncodeToString([]byte(middle)),
			base64.StdEncoding.EncodeToString([]byte(s)), base64.StdEncoding.EncodeToString([]byte("Bearer " + s)),
			strings.TrimRight(base64.RawURLEncoding.EncodeToString([]byte(s)), "=")[:40],
		}
		for _, text := range texts {
			for _, form := range forms {
				if at := strings.Index(text, form); at >= 0 {
					t.Errorf("%.8s... is in %q", s, text[max(0, at-60):at])
				}
			}
		}
	}
}

func TestLinkEnds(t *testing.T) {
	f := startTeam(t)
	create := func() (k wire.KeyCreated) {
		f.must(201, &k, "POST", "/admin/v1/keys", wire.CreateKey{Tenant: "acme", Project: "web", Env: "prod", ServiceAccount: "bot", WrapSeconds: 60})
		return k
	}
	first := create()
	f.must(200, nil, "POST", "/admin/v1/keys/"+string(first.ID)+"/revoke", nil)
	f.must(404, nil, "POST", "/admin/v1/unwrap", wire.Unwrap{Token: first.LinkToken})
	var next wire.KeyCreated
	second := create()
	f.must(201, &next, "POST", "/admin/v1/keys/"+string(second.ID)+"/rotate", wire.RotateKey{WrapSeconds: 60})
	var got wire.Unwrapped
	f.must(200, &got, "POST", "/admin/v1/unwrap", wire.Unwrap{Token: next.LinkToken})
	if got.ID != next.ID {
		t.Errorf("rotation's link leads to %+v", got)
	}
	// A reading that cannot be recorded leaves the link as it is.
	f.Trail.Fail(func(audit.Event) error { return errors.New("disk full") })
	f.must(503, nil, "POST", "/admin/v1/unwrap", wire.Unwrap{Token: second.LinkToken})
	f.Trail.Fail(nil)
	f.must(200, nil, "POST", "/admin/v1/unwrap", wire.Unwrap{Token: second.LinkToken})
	// A link that cannot be stored leaves no key that nobody has.
	wraps := 0
	f.Cluster.SetBefore(func(cmd command.Command) error {
		if _, ok := cmd.(*command.CreateWrap); ok {
			wraps++
			return bulkhead.E(bulkhead.Unavailable, "no_leader", "The cluster cannot take changes now.")
		}
		return nil
	})
	f.must(503, nil, "POST", "/admin/v1/keys", wire.CreateKey{Tenant: "acme", Project: "web", Env: "prod", ServiceAccount: "bot", WrapSeconds: 60, Label: "lost"})
	lost := 0
	for _, k := range f.Cluster.State().Keys("acme") {
		if k.Label == "lost" && k.RevokedAt != 0 {
			lost++
		}
	}
	if wraps != 1 || lost != 1 {
		t.Errorf("%d wraps were tried, %d keys without a reader are revoked", wraps, lost)
	}
}
