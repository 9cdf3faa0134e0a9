package e2e_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// follower is a node that does not lead.
func (f *fleet) follower() *node {
	f.t.Helper()
	var found *node
	eventually(f.t, "somebody leads", func() error {
		s, err := f.running().status()
		if err != nil || s.Leader == "" {
			return fmt.Errorf("%+v, %v", s, err)
		}
		for _, n := range f.nodes {
			if n.running() && n.memberID() != s.Leader {
				found = n
			}
		}
		return nil
	})
	return found
}

// also is traffic that counts for both.
func (tr *traffic) also(more ...*traffic) *traffic {
	sum := &traffic{}
	for _, t := range append(more, tr) {
		sum.ok, sum.unknown, sum.other = append(sum.ok, t.ok...), append(sum.unknown, t.unknown...), append(sum.other, t.other...)
	}
	return sum
}

// restarts kills the tenant's worker several times under load.
func (f *fleet) restarts(tenant string, times int, tr *traffic) {
	f.t.Helper()
	for range times {
		owner := f.owner(tenant)
		pids := owner.find("bulkhead-worker tenant=" + tenant)
		before := tr.answered()
		killProcess(f.t, pids[0])
		eventually(f.t, "requests flow", func() error { return atLeast(tr, before+5) })
	}
}

// TestRestoredSnapshot: the state is put back, through a node that does not lead,
// to before many starts of a tenant's worker. The copies of the journal know newer
// epochs than the state; the tenant is served all the same, nothing of its journal
// is lost, and the ledger books again, once, what it has forgotten: also what a key
// used that the backup does not know.
func TestRestoredSnapshot(t *testing.T) {
	t.Parallel()
	f, up := startFleet(t, 3, ""), startUpstream(t)
	k := f.nodes[0].tenant("bank", "{}", up)
	sleeper := f.nodes[0].tenant("shop", "{}", up)
	old := flow(f.nodes, 1, k.Key, chat("[[up in=3 out=5]]"))
	eventually(t, "requests flow", func() error { return atLeast(old, 20) })
	old.end()
	f.nodes[1].chat(200, sleeper.Key, chat("x"))
	f.reconcile("bank", old)
	file := filepath.Join(f.nodes[1].dir, "state.bhsnap")
	f.nodes[1].must("", "cluster", "snapshot", "save", file)

	late := f.nodes[2].key("bank", "prod")
	tr, lt := flow(f.nodes, 1, k.Key, chat("[[up in=3 out=5]]")), flow(f.nodes[:1], 1, late.Key, chat("[[up in=3 out=5]]"))
	f.restarts("bank", 2, tr)
	home := f.owner("bank").memberID() // the backup says so, too
	f.running().must("", "cluster", "drain", home, "--wait")
	f.restarts("bank", 2, tr) // where it was knows nothing of these
	for range 15 {
		f.running().must("", "tenant", "suspend", "bank")
		f.running().must("", "tenant", "resume", "bank")
		before := tr.answered()
		eventually(t, "requests flow", func() error { return atLeast(tr, before+1) })
	}
	f.running().must("", "cluster", "drain", home, "--off")
	tr.end()
	lt.end()
	f.nodes[1].chat(200, sleeper.Key, chat("x"))
	f.nodes[1].booked("shop", 2)
	f.reconcile("bank", tr.also(old, lt))
	before := f.nodes[0].requests("bank")
	row := f.nodes[0].booked("bank", int64(len(before)))

	f.follower().must("", "cluster", "snapshot", "restore", file, "--reason", "drill")
	eventually(t, "the late key is forgotten", func() error {
		for _, n := range f.nodes {
			if a, err := n.try(t.Context(), late.Key, "chat/completions", chat("x")); err != nil || a.status != 401 {
				return fmt.Errorf("%v, %v", a, err)
			}
		}
		return nil
	})
	// Nobody asks: the ledger follows by itself.
	after := f.nodes[2].booked("bank", row.Requests)
	if after != row {
		t.Errorf("booked again: %+v, before: %+v", after, row)
	}
	f.nodes[2].booked("shop", 2)
	again := flow(f.nodes, 1, k.Key, chat("[[up in=3 out=5]]"))
	eventually(t, "the tenant is served", func() error { return atLeast(again, 20) })
	again.end()
	f.reconcile("bank", again.also(old, tr, lt))
	now := map[string]bool{}
	for _, l := range f.nodes[0].requests("bank") {
		now[l.RequestID] = true
	}
	if slices.ContainsFunc(before, func(l logLine) bool { return !now[l.RequestID] }) {
		t.Error("a request is not in the log any more")
	}
	if len(lt.ok) == 0 || len(old.ok) == 0 {
		t.Error("the story told nothing")
	}
}

// TestLostQuorum: two of three nodes are gone for good. The one that is left goes
// on alone, by the operator's word; then two empty machines come, all is whole
// again, and any node may die.
func TestLostQuorum(t *testing.T) {
	t.Parallel()
	f, up := startFleet(t, 3, ""), startUpstream(t)
	k := f.nodes[0].tenant("bank", "{}", up)
	tr := flow(f.nodes, 1, k.Key, chat("x"))
	eventually(t, "requests flow", func() error { return atLeast(tr, 20) })
	tr.end()
	f.reconcile("bank", tr)
	left := f.nodes[0]
	lost := f.nodes[1:]
	for _, n := range lost {
		n.kill()
		check(t, os.RemoveAll(n.data()))
	}
	left.stop()
	left.offline("cluster", "recover", "--config", left.args[2], "--voter", left.memberID())
	left.start()
	f.nodes = []*node{left}

	eventually(t, "the first of the lost ones is removed", func() error { return left.remove(lost[0].memberID()) })
	err := left.remove(lost[1].memberID())
	if err == nil || !strings.Contains(err.Error(), "bank") || !strings.Contains(err.Error(), "no majority") {
		t.Errorf("the loss of journals was accepted by nobody: %v", err)
	}
	check(t, left.remove(lost[1].memberID(), "--accept-loss"))
	check(t, left.remove(lost[1].memberID(), "--accept-loss")) // may be repeated
	log, err := os.ReadFile(left.logs())
	check(t, err)
	if !bytes.Contains(log, []byte("gave up copies")) {
		t.Error("the log says nothing of what was given up")
	}
	eventually(t, "the tenant is served", func() error { return left.serves(k) })
	f.reconcile("bank", tr)
	if s, err := left.status(); err != nil || len(s.Nodes) != 1 {
		t.Errorf("%+v, %v", s, err)
	}

	for i := range 2 {
		fresh := newNode(t)
		fresh.configureMember(2+i, "") // the name of one that was lost, and
		if i == 0 {
			fresh.rename("node-9") // a new one
		}
		f.nodes = append(f.nodes, fresh)
		f.join(fresh)
	}
	f.whole()
	f.copied()
	more := flow(f.nodes, 1, k.Key, chat("x"))
	eventually(t, "requests flow", func() error { return atLeast(more, 20) })
	more.end()
	left.kill() // the only one that has seen it all
	f.nodes = f.nodes[1:]
	eventually(t, "the tenant is served without the survivor", func() error { return f.nodes[0].serves(k) })
	f.reconcile("bank", more.also(tr))
}

func (n *node) remove(id string, more ...string) error {
	if r := n.run("", append([]string{"cluster", "remove", id, "--reason", "it is lost"}, more...)...); r.code != 0 {
		return fmt.Errorf("exit %d: %s", r.code, r.err)
	}
	return nil
}

func (n *node) serves(k key) error {
	a, err := n.try(n.t.Context(), k.Key, "chat/completions", chat("x"))
	if err != nil || a.status != 200 {
		return fmt.Errorf("%v, %v", a, err)
	}
	return nil
}

// rename changes the id of a node that has not joined yet.
func (n *node) rename(id string) {
	n.t.Helper()
	config, err := os.ReadFile(n.args[2])
	check(n.t, err)
	write(n.t, n.args[2], strings.Replace(string(config), "node_id: "+n.memberID(), "node_id: "+id, 1))
}

// copied waits until every journal has all its copies, and each node one.
func (f *fleet) copied() {
	f.t.Helper()
	eventually(f.t, "the journals have their copies", func() error {
		s, err := f.running().status()
		if err != nil || s.LackCopies > 0 {
			return fmt.Errorf("%+v, %v", s, err)
		}
		for _, n := range f.nodes {
			if n.replicas() == 0 {
				return fmt.Errorf("%s has no copy", n.memberID())
			}
		}
		return nil
	})
}

// TestSnapshotThroughAnyNode: a backup that is taken on one node holds what was
// acknowledged on another; one that is damaged or of another cluster is refused on
// any node and changes nothing.
func TestSnapshotThroughAnyNode(t *testing.T) {
	t.Parallel()
	f := startFleet(t, 3, "")
	foreign := startFleet(t, 1, "")
	k := f.nodes[0].tenant("bank", "{}", nil)
	file := filepath.Join(f.nodes[0].dir, "state.bhsnap")
	for i := range 9 { // each time a key more
		f.nodes[i%3].key("bank", "prod")
		var info struct{ Keys, Tenants int }
		check(t, json.Unmarshal([]byte(f.nodes[(i+1)%3].must("", "cluster", "snapshot", "save", file, "-o", "json")), &info))
		if info.Keys != i+2 || info.Tenants != 1 {
			t.Errorf("the backup holds %+v after %d keys", info, i+2)
		}
		check(t, os.Remove(file))
	}
	save := func(n *node) []byte {
		n.must("", "cluster", "snapshot", "save", file)
		raw, err := os.ReadFile(file)
		check(t, err)
		check(t, os.Remove(file))
		return raw
	}
	good, other := save(f.nodes[0]), save(foreign.nodes[0])
	flipped := bytes.Clone(good)
	flipped[len(flipped)-9] ^= 1
	after := f.nodes[0].key("bank", "prod")
	for _, n := range f.nodes {
		for _, c := range []struct {
			name string
			file []byte
			want string
		}{
			{"flipped", flipped, "damaged"}, {"cut", good[:len(good)/2], "damaged"}, {"empty", nil, "damaged"},
			{"junk", make([]byte, 16<<20), "damaged"}, {"longer", append(bytes.Clone(good), 0), "damaged"}, {"foreign", other, "another cluster"},
		} {
			if a := n.restore(c.file); a.status < 400 || a.status >= 500 || !strings.Contains(a.body, c.want) {
				t.Errorf("%s through %s: %s", c.name, n.memberID(), a)
			}
		}
	}
	for _, n := range f.nodes {
		for _, k := range []key{k, after} { // no provider: but the key is known
			if a := n.post(k.Key, "models", ""); a.status != 200 {
				t.Errorf("after what was refused: %s", a)
			}
		}
	}
	if a := f.follower().restore(good); a.status != 200 {
		t.Errorf("the good one: %s", a)
	}
	for _, n := range f.nodes { // at once
		if a := n.post(after.Key, "models", ""); a.status != 401 {
			t.Errorf("%s has not the older state: %s", n.memberID(), a)
		}
	}
	f.nodes[1].key("bank", "prod") // and goes on from it
}

// restore sends a file as the command line does not: unseen.
func (n *node) restore(file []byte) answer {
	n.t.Helper()
	r, err := http.NewRequest(http.MethodPut, n.env["BULKHEAD_ADDR"]+"/admin/v1/cluster/snapshot", bytes.NewReader(file))
	check(n.t, err)
	r.Header.Set("Authorization", "Bearer "+n.env["BULKHEAD_TOKEN"])
	r.Header.Set("Content-Type", "application/octet-stream")
	r.Header.Set("X-Bulkhead-Reason", "drill")
	resp, err := client.Do(r)
	check(n.t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	check(n.t, err)
	return answer{resp.StatusCode, resp.Header, string(body)}
}
