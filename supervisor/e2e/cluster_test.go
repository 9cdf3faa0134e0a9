package e2e_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestAnyNodeServes: a client may talk to any node; a key that was made through
// one works on all at once, and one that was revoked through one is dead on all
// before the command returns.
func TestAnyNodeServes(t *testing.T) {
	t.Parallel()
	f, up := startFleet(t, 3, ""), startUpstream(t)
	k := f.nodes[0].tenant("bank", "{}", up)
	for _, n := range f.nodes {
		n.chat(200, k.Key, chat("x"))
	}
	for round := range 5 {
		k := f.nodes[round%3].key("bank", "prod")
		for _, n := range f.nodes {
			n.chat(200, k.Key, chat("x"))
		}
		f.nodes[(round+1)%3].must("", "key", "revoke", k.ID)
		for _, n := range f.nodes {
			n.chat(401, k.Key, chat("x"))
		}
	}
	for _, n := range f.nodes {
		if a := n.get("/metrics", ""); !strings.Contains(a.body, "\nbulkhead_cluster_failure_tolerance 1\n") {
			t.Errorf("no alarm metrics: %d %.200s", a.status, a.body)
		}
	}
	if row := f.nodes[2].booked("bank", 18); row.Served != 18 {
		t.Errorf("booked %+v", row)
	}
	if lines := f.nodes[1].requests("bank"); len(lines) != 18 {
		t.Errorf("%d lines in the log", len(lines))
	}
}

// TestNodeDies: kill -9 of the node that runs a tenant's worker. The tenant is
// served by another one, the others notice nothing, and every answer that a
// client received whole is on the bill exactly once.
func TestNodeDies(t *testing.T) {
	t.Parallel()
	f, up := startFleet(t, 3, ""), startUpstream(t)
	k := f.nodes[0].tenant("bank", "{}", up)
	f.nodes[0].chat(200, k.Key, chat("x"))
	victim := f.owner("bank")
	survivors := f.others(victim)
	other := ""
	for i := 0; other == ""; i++ { // a neighbour that lives elsewhere
		name := fmt.Sprintf("shop%d", i)
		n := f.nodes[0].tenant(name, "{}", up)
		f.nodes[0].chat(200, n.Key, chat("x"))
		if f.owner(name) != victim {
			other = n.Key
		}
	}
	s := survivors[0].stream(other, chat("[[up gate=neighbour chunks=3]]", `"stream":true`))
	s.next()
	tr := flow(survivors, 2, k.Key, chat("[[up in=3 out=5]]"))
	eventually(t, "requests flow", func() error { return atLeast(tr, 20) })
	victim.kill()
	before := tr.answered()
	began := time.Now()
	eventually(t, "the tenant is served by another node", func() error { return atLeast(tr, before+1) })
	t.Logf("served again %s after the kill", time.Since(began).Round(10*time.Millisecond))
	eventually(t, "requests flow", func() error { return atLeast(tr, before+20) })
	tr.end()
	up.gate("neighbour").release()
	s.whole()
	for _, o := range tr.other {
		if !strings.HasPrefix(o, "503 ") {
			t.Errorf("answered %s", o)
		}
	}
	victim.start()
	f.whole()
	f.reconcile("bank", tr)
}

func atLeast(tr *traffic, n int) error {
	if have := tr.answered(); have < n {
		return fmt.Errorf("%d of %d answers", have, n)
	}
	return nil
}

// reconcile holds the clients' answers against the log: each that was received
// whole is there exactly once, as served, and the report counts the same.
func (f *fleet) reconcile(tenant string, tr *traffic) {
	f.t.Helper()
	n := f.running()
	var lines []logLine
	eventually(f.t, "the report has every line of the log", func() error {
		lines = n.requests(tenant)
		rows := n.usage("tenant")
		i := slices.IndexFunc(rows, func(r usageRow) bool { return r.Tenant == tenant })
		if i < 0 || rows[i].Requests != int64(len(lines)) {
			return fmt.Errorf("%d lines, report %+v", len(lines), rows)
		}
		return nil
	})
	seen := map[string]int{}
	for _, l := range lines {
		seen[l.RequestID]++
	}
	for _, id := range tr.ok {
		if seen[id] != 1 {
			f.t.Errorf("request %s was answered and is %d times in the log", id, seen[id])
		}
	}
}

// TestRollingRestart: drain, stop, start, one node after the other, under load:
// not one request fails.
func TestRollingRestart(t *testing.T) {
	t.Parallel()
	f, up := startFleet(t, 3, ""), startUpstream(t)
	k := f.nodes[0].tenant("bank", "{}", up)
	f.nodes[0].chat(200, k.Key, chat("x"))
	for _, n := range f.nodes {
		f.change(n, "", k.Key)
	}
}

// memberID is the node's id in the cluster.
func (n *node) memberID() string {
	n.t.Helper()
	config, err := os.ReadFile(n.args[2])
	check(n.t, err)
	for line := range strings.Lines(string(config)) {
		if id, ok := strings.CutPrefix(line, "node_id: "); ok {
			return strings.TrimSpace(id)
		}
	}
	n.t.Fatal("no node id")
	return ""
}

// TestLimitAcrossNodes: requests through all nodes at once against one limit:
// never one more, and never fewer than fit, also when the owner dies half-way.
func TestLimitAcrossNodes(t *testing.T) {
	t.Parallel()
	f, up := startFleet(t, 3, ""), startUpstream(t)
	k := f.nodes[0].tenant("bank", "{daily: {requests: 60}}", up)
	f.nodes[0].chat(200, k.Key, chat("x"))
	victim := f.owner("bank")
	tr := flow(f.others(victim), 3, k.Key, chat("x"))
	eventually(t, "requests flow", func() error { return atLeast(tr, 20) })
	victim.kill()
	eventually(t, "the limit is reached", func() error {
		tr.mu.Lock()
		defer tr.mu.Unlock()
		if !slices.ContainsFunc(tr.other, func(o string) bool { return strings.HasPrefix(o, "429 ") }) {
			return fmt.Errorf("%d answers", len(tr.ok))
		}
		return nil
	})
	tr.end()
	served := len(tr.ok) + 1 // and the first
	if served > 60 || served+len(tr.unknown) < 60 {
		t.Errorf("%d served and %d unknown, the limit is 60", served, len(tr.unknown))
	}
	if calls, _, _ := up.charged(); calls > 60 {
		t.Errorf("the upstream was called %d times", calls)
	}
}

// TestFrozenNode: a whole node stops for longer than its lease and comes back:
// no upstream call and no record of the old epoch.
func TestFrozenNode(t *testing.T) {
	t.Parallel()
	f, up := startFleet(t, 3, ""), startUpstream(t)
	k := f.nodes[0].tenant("bank", "{}", up)
	f.nodes[0].chat(200, k.Key, chat("x"))
	victim := f.owner("bank")
	tr := flow(f.others(victim), 2, k.Key, chat("[[up out=5]]"))
	eventually(t, "requests flow", func() error { return atLeast(tr, 20) })
	victim.signal(syscall.SIGSTOP)
	before := tr.answered()
	eventually(t, "another node serves", func() error { return atLeast(tr, before+20) })
	tr.end()
	calls, _, _ := up.charged()
	victim.signal(syscall.SIGCONT)
	eventually(t, "the frozen node gave its worker up", func() error {
		if pids := victim.find("bulkhead-worker tenant=bank"); len(pids) > 0 {
			return fmt.Errorf("%v", pids)
		}
		return nil
	})
	if now, _, _ := up.charged(); now != calls {
		t.Errorf("%d upstream calls by the old epoch", now-calls)
	}
	f.whole()
	victim.chat(200, k.Key, chat("x"))
	f.reconcile("bank", tr)
}

// TestEmptyMachine: a node's disk is gone for good; an empty machine takes its
// place, and then another node may die.
func TestEmptyMachine(t *testing.T) {
	t.Parallel()
	f, up := startFleet(t, 3, ""), startUpstream(t)
	k := f.nodes[0].tenant("bank", "{}", up)
	tr := flow(f.nodes[:1], 2, k.Key, chat("x"))
	eventually(t, "requests flow", func() error { return atLeast(tr, 20) })
	tr.end()
	lost := f.nodes[2]
	lost.kill()
	f.nodes[0].must("", "cluster", "remove", lost.memberID(), "--reason", "its disk is lost")
	fresh := newNode(t)
	fresh.configureMember(3, "")
	f.nodes[2] = fresh
	f.join(fresh)
	f.whole()
	eventually(t, "the new machine keeps the tenant's journal", func() error {
		if fresh.replicas() == 0 {
			return errors.New("no copy")
		}
		return nil
	})
	f.owner("bank").kill()
	eventually(t, "the tenant is served", func() error {
		a, err := f.running().try(t.Context(), k.Key, "chat/completions", chat("x"))
		if err != nil || a.status != 200 {
			return fmt.Errorf("%d %s %v", a.status, a.body, err)
		}
		return nil
	})
	f.reconcile("bank", tr)
}

// replicas counts the segment files that a node keeps.
func (n *node) replicas() int {
	found, _ := filepath.Glob(filepath.Join(n.data(), "tenants", "*", "data", "journal", "*.seg"))
	return len(found)
}

// TestYesterdaysImage: a node whose disk was put back to an earlier state says
// so, does not come up, and does no harm.
func TestYesterdaysImage(t *testing.T) {
	t.Parallel()
	f, up := startFleet(t, 3, ""), startUpstream(t)
	k := f.nodes[0].tenant("bank", "{}", up)
	f.nodes[0].chat(200, k.Key, chat("x"))
	victim := f.nodes[2]
	victim.stop()
	image := victim.data() + ".yesterday"
	copyTree(t, victim.data(), image)
	victim.start()
	f.whole()
	for i := range 20 {
		f.nodes[0].must("", "key", "revoke", f.nodes[0].key("bank", "prod").ID)
		f.nodes[i%3].chat(200, k.Key, chat("x"))
	}
	victim.kill()
	copyTree(t, image, victim.data())
	r := victim.run("", victim.args...)
	if r.code != 4 || !strings.Contains(r.err, "disk_rolled_back") {
		t.Errorf("exit %d, says %s", r.code, r.err)
	}
	f.nodes[0].chat(200, k.Key, chat("x"))
}

// TestDevNodes: `bulkhead dev --nodes 3` is a cluster on loopback; any of its nodes
// answers, and one of them may be killed.
func TestDevNodes(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.args = []string{"dev", "--nodes", "3", "--data", n.data(), "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"}
	n.start()
	urls := strings.Split(n.env["BULKHEAD_URLS"], ",")
	if len(urls) != 3 || urls[0] != n.url() {
		t.Fatalf("BULKHEAD_URLS %q, BULKHEAD_URL %q", urls, n.url())
	}
	ask := func(url string) error {
		n.env["BULKHEAD_URL"] = url
		a, err := n.try(t.Context(), n.env["ACME_PROD_KEY"], "chat/completions", `{"model":"echo","messages":[{"role":"user","content":"x"}]}`)
		if err != nil || a.status != 200 {
			return fmt.Errorf("%d %s %v", a.status, a.body, err)
		}
		return nil
	}
	for _, url := range urls {
		check(t, ask(url))
	}
	pid, err := os.ReadFile(filepath.Join(n.data(), "node3", "supervisor.pid"))
	check(t, err)
	id, err := strconv.Atoi(strings.TrimSpace(string(pid)))
	check(t, err)
	*n.family = append(*n.family, descendants(id)...)
	check(t, syscall.Kill(id, syscall.SIGKILL))
	for _, url := range urls[:2] {
		eventually(t, "another node answers", func() error { return ask(url) })
	}
}
