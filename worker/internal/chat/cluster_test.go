package chat

import (
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/worker/internal/lease"
)

// TestCommitUnavailable: while the copies do not confirm the receipt, the client
// gets no complete answer, and the receipt is booked once they do.
func TestCommitUnavailable(t *testing.T) {
	t.Parallel() // waits 5 s of real time: the provider is behind a socket
	for name, c := range map[string]struct{ body, want string }{
		"plain":    {solo, `{"error":`},
		"streamed": {streamed, piece("a")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var s *shop
			s = newShop(t, setup{copied: true, main: func(w http.ResponseWriter, r *http.Request) {
				s.copies.Hold() // the intent has passed
				if name == "plain" {
					reply(200, completion(goodUsage))(w, r)
					return
				}
				events(piece("a"), finish, usage, done)(w, r)
			}})
			a := s.do(call{body: c.body})
			if a.code() != "commit_unavailable" || !strings.HasPrefix(a.body, c.want) || strings.Contains(a.body, "DONE") || strings.Contains(a.body, "finish_reason\":\"stop") {
				t.Errorf("status %d, code %q: %s", a.status, a.code(), a.body)
			}
			if name == "plain" && a.status != 503 {
				t.Errorf("status %d", a.status)
			}
			if got := s.receipts(); len(got) != 0 {
				t.Errorf("the ledger was told: %+v", got)
			}
			s.copies.Release()
			if r := s.last(1); r.Outcome != bulkhead.Served || r.Usage.Total() != 12 || r.Unknown {
				t.Errorf("receipt %s", describe(r))
			}
		})
	}
}

// TestLeaseLost: a node that may not serve sends nothing to a provider, and says
// so; nothing is charged.
func TestLeaseLost(t *testing.T) {
	f, err := os.CreateTemp(t.TempDir(), "page") // zeros: over since the boot
	if err == nil {
		err = f.Truncate(int64(os.Getpagesize()))
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	page, err := lease.Map(f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { page.Close() }) // after the shop's
	var asked seen
	s := newShop(t, setup{lease: page, main: asked.then(reply(200, completion(goodUsage))), spare: asked.then(reply(200, completion(goodUsage)))})
	for _, body := range []string{chat, streamed} {
		if a := s.do(call{body: body}); a.status != 503 || a.code() != "lease_lost" {
			t.Errorf("status %d, code %q", a.status, a.code())
		}
	}
	for _, r := range s.ended(2) {
		if r.Outcome != bulkhead.Failed || r.Code != "lease_lost" || r.Unknown || r.Cost != 0 {
			t.Errorf("receipt %s", describe(r))
		}
	}
	if asked.count() != 0 {
		t.Errorf("%d requests went upstream", asked.count())
	}
}
