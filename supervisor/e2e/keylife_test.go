package e2e_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
)

// minted is what `key create -o json` prints.
type minted struct {
	ID, Key   string
	LinkToken string `json:"link_token"`
}

func (n *node) minted(args ...string) minted {
	n.t.Helper()
	return decode[minted](n.t, n.must("", append(args, "-o", "json")...))
}

// TestKeyLife (V13, V39): a key from its creation to its end, on three nodes: it is
// handed over by a link that one reader can spend, works from where it may, lives
// beside its successor for a while and says who still uses it, and when it is
// revoked through one node, a stream through another is cut. What nobody needs any
// more is reported. No secret of all this is anywhere it does not belong.
func TestKeyLife(t *testing.T) {
	t.Parallel()
	f, up := startFleet(t, 3, ""), startUpstream(t)
	first, second, third := f.nodes[0], f.nodes[1], f.nodes[2]
	k := first.tenant("fraud", "{}", up)
	create := []string{"key", "create", "--tenant", "fraud", "--project", "app", "--env", "test", "--service-account", "bot"}
	var said strings.Builder // every error that somebody was shown
	ask := func(status int, n *node, k string) {
		t.Helper()
		fmt.Fprintln(&said, n.chat(status, k, chat("x")))
	}

	// By a link.
	link := first.minted(append(create, "--wrap", "1h")...)
	if link.Key != "" || link.LinkToken == "" {
		t.Fatalf("a wrapped key was shown: %+v", link)
	}
	stranger := &node{t: t, dir: second.dir, env: map[string]string{"BULKHEAD_ADDR": second.env["BULKHEAD_ADDR"]}}
	wrapped := stranger.minted("key", "unwrap", link.LinkToken)
	ask(200, third, wrapped.Key)
	r := (&node{t: t, dir: third.dir, env: map[string]string{"BULKHEAD_ADDR": third.env["BULKHEAD_ADDR"]}}).run("", "key", "unwrap", link.LinkToken)
	if said.WriteString(r.err); r.code != 1 || r.out != "" {
		t.Errorf("a link was spent twice: exit %d %s", r.code, r.out)
	}
	opened := first.trail("--tenant", "fraud", "--action", "unwrap-key")
	if !slices.ContainsFunc(opened, func(r record) bool { return r.Result == "done" }) ||
		!slices.ContainsFunc(append(opened, first.trail("--action", "unwrap-key")...), func(r record) bool { return r.Result != "done" && r.Status == 404 }) {
		t.Errorf("the trail does not tell who spent the link, and who came too late: %+v", opened)
	}

	// From where it may.
	near, far := first.minted(append(create, "--source", "127.0.0.0/8")...), first.minted(append(create, "--source", "192.0.2.0/24")...)
	for _, n := range f.nodes {
		ask(200, n, near.Key)
		if a := n.chat(403, far.Key, chat("x")); a.code() != "source_not_allowed" {
			t.Errorf("from elsewhere: %s", a)
		}
	}
	if a := third.post(far.Key, "chat/completions", chat("x"), "X-Forwarded-For", "192.0.2.7"); a.status != 403 {
		t.Errorf("an address that the client claims: %s", a)
	}

	// Rotation: both work, and the report says who still uses the old one.
	old, brief := second.minted(create...), second.minted(create...)
	ask(200, third, old.Key)
	next := second.minted("key", "rotate", old.ID, "--overlap", "24h")
	for _, n := range f.nodes {
		ask(200, n, next.Key)
		ask(200, n, old.Key)
	}
	eventually(t, "the report says that the old key is in use", func() error {
		out := third.must("", "key", "rotations", "--tenant", "fraud", "-o", "json")
		for _, r := range decode[[]struct {
			ID, Successor string
			InUse         bool `json:"in_use"`
		}](t, out) {
			if r.ID == old.ID && r.Successor == next.ID && r.InUse {
				return nil
			}
		}
		return errors.New(out)
	})

	// The overlap ends by itself.
	later := second.minted("key", "rotate", brief.ID, "--overlap", "2s")
	for _, n := range f.nodes {
		eventually(t, "the old key ends by itself", func() error {
			if a := n.post(brief.Key, "models", ""); a.status != 401 {
				return errors.New(a.String())
			}
			return nil
		})
		ask(200, n, later.Key)
	}

	// Revocation cuts what runs.
	streams := []*stream{}
	for _, n := range f.nodes {
		s := n.stream(next.Key, chat("[[up gate=never chunks=3]]", `"stream":true`))
		s.next()
		streams = append(streams, s)
	}
	bystander := third.stream(k.Key, chat("[[up gate=bystander]]", `"stream":true`))
	bystander.next()
	second.must("", "key", "revoke", next.ID)
	for _, n := range f.nodes {
		ask(401, n, next.Key)
	}
	for i, s := range streams { // the upstream never ends them; a hang is the test's own end
		if rest := s.rest(); len(rest) > 0 && rest[len(rest)-1] == "[DONE]" {
			t.Errorf("the stream through %s ended as a whole one: %q", f.nodes[i].memberID(), rest)
		} else {
			said.WriteString(strings.Join(rest, "\n"))
		}
	}
	up.gate("bystander").release()
	bystander.whole()

	// What nobody needs.
	orphans := first.must("", "get", "orphans", "--tenant", "fraud", "--unused-days", "0", "-o", "json")
	if !strings.Contains(orphans, far.ID) || !strings.Contains(orphans, `"never_used"`) || !strings.Contains(orphans, "expired") || !strings.Contains(orphans, brief.ID) {
		t.Errorf("orphans: %s", orphans)
	}
	for name, secret := range map[string]string{"nobody's key": "bh_nonsense", "a revoked one": next.Key} {
		a := second.post(secret, "chat/completions", chat("x"))
		if said.WriteString(a.String()); a.status != 401 {
			t.Errorf("%s: %s", name, a)
		}
	}

	secrets := map[string]string{"wrapped key": wrapped.Key, "link": link.LinkToken, "near": near.Key, "far": far.Key, "old": old.Key, "next": next.Key, "brief": brief.Key, "later": later.Key, "first": k.Key}
	for _, n := range f.nodes {
		secrets["token of "+n.memberID()] = n.env["BULKHEAD_TOKEN"]
	}
	canaries(t, "what clients were told", []byte(said.String()), secrets)
	canaries(t, "orphans", []byte(orphans), secrets)
	for _, n := range f.nodes {
		n.tellsNothing(secrets)
	}
}

// tellsNothing looks for secrets wherever operators and neighbours look.
func (n *node) tellsNothing(secrets map[string]string) {
	t := n.t.(*testing.T)
	t.Helper()
	log, err := os.ReadFile(n.logs())
	check(t, err)
	canaries(t, "the log of "+n.memberID(), log, secrets)
	resp, err := http.Get(n.env["BULKHEAD_ADDR"] + "/metrics")
	check(t, err)
	metrics, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	check(t, err)
	canaries(t, "the metrics of "+n.memberID(), metrics, secrets)
	for _, log := range []string{"platform", "tenant/fraud"} {
		file := n.dir + "/canaries.ndjson"
		n.must("", "audit", "export", "--log", log, "-f", file)
		raw, err := os.ReadFile(file)
		check(t, err)
		canaries(t, "the audit export of "+log, raw, secrets)
	}
	for _, args := range [][]string{{"logs", "--tenant", "fraud", "-o", "json"}, {"key", "list", "-o", "json"}, {"get", "all", "-o", "yaml"}, {"audit", "--tenant", "fraud", "-o", "csv"}} {
		canaries(t, strings.Join(args, " "), []byte(n.must("", args...)), secrets)
	}
	for _, p := range append(descendants(n.cmd.Process.Pid), process{pid: n.cmd.Process.Pid}) {
		for _, file := range []string{"environ", "cmdline"} {
			b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/%s", p.pid, file)) // it may have ended
			canaries(t, fmt.Sprintf("%s of %s", file, cmdline(p.pid)), b, secrets)
		}
	}
}
