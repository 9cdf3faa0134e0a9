package e2e_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// record is a line of `audit -o json`.
type record struct {
	Log, Op, Phase, Action, Object, Reason, Result, Code, Request, Node string

	Seq           uint64
	Status, Count int
	Actor         struct{ Subject, Method, Role, Address string }
	Before, After any
}

// trail reads a log of the audit trail, oldest first.
func (n *node) trail(filter ...string) (out []record) {
	n.t.Helper()
	for line := range strings.Lines(n.must("", append([]string{"audit", "-o", "json"}, filter...)...)) {
		out = append(out, decode[record](n.t, line))
	}
	slices.Reverse(out)
	return out
}

// TestAuditTrail: what was done, with before, after and why, stands in the log of
// the tenant it was done to, the intent before the outcome; what was refused or
// broke stands there too; and no secret does. An export verifies with the public
// key alone, a changed one does not.
func TestAuditTrail(t *testing.T) {
	t.Parallel()
	n, up := startServer(t, ""), startUpstream(t)
	fraud := n.tenant("fraud", "{daily: {requests: 41}}", up)
	n.tenant("risk", "{}", nil)
	n.must("kind: Tenant\nmetadata: {name: fraud}\nspec: {owner: owner@fraud.example, cost_center: CC-1, limits: {daily: {requests: 17}}}\n",
		"apply", "-f", "-", "--reason", "case 5: they asked for less")
	asked := n.chat(200, fraud.Key, chat("x"))
	n.logged("fraud", asked.id())
	if r := n.run("", "key", "create", "--tenant", "fraud", "--project", "nowhere", "--env", "prod", "--service-account", "bot"); r.code != 1 {
		t.Errorf("a key of no project: exit %d %s", r.code, r.out)
	}
	if r := n.run("", "tenant", "suspend", "absent"); r.code != 1 {
		t.Errorf("suspended nobody: exit %d %s", r.code, r.out)
	}

	all := n.trail("--tenant", "fraud")
	change := slices.IndexFunc(all, func(r record) bool { return r.Reason == "case 5: they asked for less" && r.Phase == "intent" })
	if change < 0 {
		t.Fatalf("the change is not in the log: %+v", all)
	}
	intent, outcome := all[change], record{}
	for _, r := range all[change+1:] {
		if r.Op == intent.Op {
			outcome = r
		}
	}
	if before, after := fmt.Sprint(intent.Before, outcome.Before), fmt.Sprint(intent.After, outcome.After); !strings.Contains(before, "41") || !strings.Contains(after, "17") {
		t.Errorf("before %s, after %s", before, after)
	}
	if intent.Result != "pending" || outcome.Phase != "outcome" || outcome.Result != "done" || outcome.Action != "apply" || intent.Request == "" ||
		intent.Actor.Method != "token" || intent.Actor.Role != "platform-admin" || !strings.HasPrefix(intent.Actor.Address, "127.0.0.1") || intent.Node != "node-1" {
		t.Errorf("intent %+v, outcome %+v", intent, outcome)
	}
	if !slices.ContainsFunc(all, func(r record) bool { return r.Action == "logs" && r.Result == "done" }) {
		t.Error("nothing tells that the request log was read")
	}
	if !slices.ContainsFunc(all, func(r record) bool { return r.Action == "create-key" && r.Result == "failed" && r.Status >= 400 }) {
		t.Errorf("nothing tells of the key that was not made: %+v", all)
	}
	for i, r := range all {
		if r.Log != "tenant/fraud" || r.Seq != uint64(i+1) {
			t.Errorf("record %d of the log is %s %d", i+1, r.Log, r.Seq)
		}
	}
	if raw := n.must("", "audit", "--tenant", "fraud", "-o", "json"); strings.Contains(raw, fraud.Key) || !strings.Contains(raw, fraud.ID) {
		t.Error("the key is in the log, or its id is not")
	}
	if len(n.trail("--tenant", "fraud", "--action", "create-key", "--result", "failed")) != 1 || len(n.trail("--tenant", "risk", "--action", "logs")) != 0 {
		t.Error("filters do not filter")
	}
	n.must("", "audit", "verify")
	n.exportVerifies("tenant/fraud")
	n.exportVerifies("platform")
	n.trailUnwritable(fraud)
	n.guessesAreCounted()
}

// exportVerifies takes an export to where no node is.
func (n *node) exportVerifies(log string) {
	t := n.t
	t.Helper()
	file, key := filepath.Join(n.dir, "export.ndjson"), strings.TrimSpace(n.must("", "audit", "key"))
	n.must("", "audit", "export", "--log", log, "-f", file)
	offline := &node{t: t, dir: n.dir}
	offline.must("", "audit", "verify", "--file", file, "--key", key)
	whole, err := os.ReadFile(file)
	check(t, err)
	lines := bytes.SplitAfter(whole, []byte("\n"))
	at := slices.IndexFunc(lines, func(l []byte) bool { return bytes.Contains(l, []byte(`"seq":3`)) })
	if at < 0 {
		t.Fatalf("record 3 is not in the export: %.500s", whole)
	}
	for what, changed := range map[string][][]byte{
		"a changed record":    slices.Concat(lines[:at], [][]byte{bytes.Replace(lines[at], []byte(`"action":"`), []byte(`"action":"x`), 1)}, lines[at+1:]),
		"a record less":       slices.Concat(lines[:at], lines[at+1:]),
		"two swapped records": slices.Concat(lines[:at], [][]byte{lines[at+1], lines[at]}, lines[at+2:]),
		"no end":              lines[:len(lines)-2],
	} {
		write(t, file, string(bytes.Join(changed, nil)))
		if r := offline.run("", "audit", "verify", "--file", file, "--key", key); r.code != 1 {
			t.Errorf("an export of %s with %s: exit %d %s", log, what, r.code, r.out)
		}
	}
	write(t, file, string(whole))
	offline.must("", "audit", "verify", "--file", file, "--key", key)
	check(t, os.Remove(file))
}

// trailUnwritable: without a place to keep the trail nothing is done, but clients
// are served; when the place is back, so is everything, and the trail is whole.
func (n *node) trailUnwritable(k key) {
	t := n.t
	t.Helper()
	place, away := filepath.Join(n.data(), "audit"), filepath.Join(n.data(), "audit.away")
	check(t, os.Rename(place, away))
	write(t, place, "no folder")
	eventually(t, "nothing can be done without a trail", func() error {
		if a := n.get("/admin/v1/keys", n.env["BULKHEAD_TOKEN"]); a.status != 503 || !strings.Contains(a.body, "audit_unavailable") {
			return errors.New(a.String())
		}
		return nil
	})
	if r := n.run("kind: Tenant\nmetadata: {name: late}\nspec: {owner: owner@late.example, cost_center: CC-1}\n", "apply", "-f", "-"); r.code != 1 || !strings.Contains(r.err, "audit") {
		t.Errorf("apply without a trail: exit %d %s%s", r.code, r.out, r.err)
	}
	if r := n.run("", "key", "revoke", k.ID); r.code != 1 {
		t.Errorf("revoke without a trail: exit %d %s", r.code, r.out)
	}
	n.chat(200, k.Key, chat("x"))
	if m := n.get("/metrics", "").body; !strings.Contains(m, "\nbulkhead_audit_unwritable 1\n") {
		t.Error("no alarm tells that the trail cannot be written")
	}
	check(t, os.Remove(place))
	check(t, os.Rename(away, place))
	eventually(t, "the trail is written again", func() error {
		if r := n.run("", "key", "list"); r.code != 0 {
			return errors.New(r.err)
		}
		return nil
	})
	if got := n.must("", "get", "tenant", "-o", "csv"); strings.Contains(got, "late") {
		t.Errorf("what was refused was done: %s", got)
	}
	n.chat(200, k.Key, chat("x"))
	n.must("", "audit", "verify")
}

// guessesAreCounted: credentials that nobody knows are on record, by address and
// port and not one by one, and so are the end and the beginning of the record.
func (n *node) guessesAreCounted() {
	t := n.t
	t.Helper()
	if r := n.run("", "cluster", "shares", "save", "--recipient", "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p", "-f", filepath.Join(n.dir, "shares.age")); r.code != 1 || !strings.Contains(r.err, "reason") {
		t.Errorf("key shares for no reason: exit %d %s", r.code, r.err)
	}
	if denied := n.trail("--action", "save-shares"); len(denied) != 1 || denied[0].Result != "failed" || denied[0].Status != 422 || denied[0].Code != "reason_required" {
		t.Errorf("what was asked for without a reason: %+v", denied)
	}
	for range 3 {
		if a := n.get("/admin/v1/keys", "guess"); a.status != 401 {
			t.Errorf("a guess at the admin port: %s", a)
		}
	}
	n.chat(401, "bh_guess", chat("x"))
	n.stop()
	n.start()
	counts := map[string]int{}
	for _, r := range n.trail("--action", "auth.refused") {
		if r.Result != "denied" || !strings.HasPrefix(r.Actor.Address, "127.0.0.1") {
			t.Errorf("guesses: %+v", r)
		}
		counts[r.Object] += max(r.Count, 1)
	}
	if len(counts) != 2 || counts["port admin"] != 3 || counts["port data"] != 1 {
		t.Errorf("guesses: %v", counts)
	}
	if stops, starts := n.trail("--action", "node.stop"), n.trail("--action", "node.start"); len(stops) != 1 || len(starts) != 2 {
		t.Errorf("the record ended %d times and began %d times, want 1 and 2", len(stops), len(starts))
	}
	n.must("", "audit", "verify")
}

// forgotten is how many records the state has forgotten all that came before.
const forgotten = 4096

// flood makes the cluster's state forget all that is in the audit trail so far, so
// that only the nodes' copies have it.
func (n *node) flood() {
	n.t.Helper()
	var left atomic.Int64
	left.Store(forgotten + 1)
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				if a := n.get("/admin/v1/audit/key", n.env["BULKHEAD_TOKEN"]); a.status != 200 {
					n.t.Errorf("read %s", a)
					return
				}
			}
		})
	}
	wg.Wait()
}

// segmentOf is the first file of a log.
func (n *node) segmentOf(folder string) string {
	return filepath.Join(n.data(), "audit", folder, "00000000000000000001.ndjson")
}

// damages are ways to edit the log of a tenant on the disk, and the first record
// that does not hold afterwards.
var damages = []struct {
	name  string
	first int
	heals bool                                        // every record is there still, so the node puts them in order at its start
	edit  func(lines [][]byte, other []byte) [][]byte // other: the log of another tenant
}{
	{"flipped byte", 3, false, func(lines [][]byte, _ []byte) [][]byte { lines[2][len(lines[2])/2] ^= 1; return lines }},
	{"deleted line", 3, false, func(lines [][]byte, _ []byte) [][]byte { return slices.Delete(lines, 2, 3) }},
	{"truncated", 4, false, func(lines [][]byte, _ []byte) [][]byte { return lines[:3] }},
	{"two swapped", 3, true, func(lines [][]byte, _ []byte) [][]byte { lines[2], lines[3] = lines[3], lines[2]; return lines }},
	{"another tenant's", 1, false, func(_ [][]byte, other []byte) [][]byte { return [][]byte{other} }},
	{"gone", 1, false, func([][]byte, []byte) [][]byte { return nil }},
}

// TestAuditTrailEdited (V50): whoever edits the files of a node that is down is
// found out at its next start: the verification fails and names log and record,
// and so does the trail itself, which also tells of what could be repaired. New records, and clients, are not stopped by it.
func TestAuditTrailEdited(t *testing.T) {
	t.Parallel()
	n, up := startServer(t, ""), startUpstream(t)
	fraud := n.tenant("fraud", "{}", up)
	n.tenant("risk", "{}", nil)
	n.flood()
	n.stop()
	file := n.segmentOf("tenant-fraud")
	pristine, err := os.ReadFile(file)
	check(t, err)
	other, err := os.ReadFile(n.segmentOf("tenant-risk"))
	check(t, err)
	for _, d := range damages {
		lines := bytes.SplitAfter(bytes.Clone(pristine), []byte("\n"))
		if len(lines) < 6 {
			t.Fatalf("the log has %d records only", len(lines))
		}
		write(t, file, string(bytes.Join(d.edit(lines, other), nil)))
		n.start()
		r := n.run("", "audit", "verify")
		if want := fmt.Sprintf("log tenant/fraud, records %d to ", d.first); d.heals {
			eventually(t, "the log is in order again", func() error {
				if r := n.run("", "audit", "verify"); r.code != 0 {
					return errors.New(r.err)
				}
				return nil
			})
		} else if r.code != 1 || !strings.Contains(r.err, want) || strings.Contains(r.err, "log tenant/risk") {
			t.Errorf("%s: exit %d, want 1 and %q: %s%s", d.name, r.code, want, r.out, r.err)
		}
		action, alarm := "audit.damaged", 1
		if d.heals {
			action, alarm = "audit.repaired", 0
		}
		eventually(t, "the trail tells of "+d.name, func() error {
			told := n.trail("--action", action)
			if len(told) == 0 || !strings.Contains(told[len(told)-1].Object, "tenant/fraud") || !strings.Contains(fmt.Sprint(told[len(told)-1].After), fmt.Sprint("from:", d.first)) {
				return fmt.Errorf("%+v", told)
			}
			return nil
		})
		if m := n.get("/metrics", "").body; !strings.Contains(m, fmt.Sprintf("\nbulkhead_audit_damaged_logs %d\n", alarm)) {
			t.Errorf("%s: the alarm is not at %d", d.name, alarm)
		}
		n.chat(200, fraud.Key, chat("x"))
		n.stop()
		left, _ := filepath.Glob(filepath.Join(filepath.Dir(file), "*.ndjson")) // the pattern is valid
		for _, f := range left {
			if filepath.Base(f) != "checkpoints.ndjson" {
				check(t, os.Remove(f))
			}
		}
		write(t, file, string(pristine))
	}
	n.start()
	n.must("", "audit", "verify") // the right file holds again
}

// TestAuditTrailRepaired (V50): what was done to the files of one node is
// repaired from the others, and told.
func TestAuditTrailRepaired(t *testing.T) {
	t.Parallel()
	f, up := startFleet(t, 3, ""), startUpstream(t)
	k := f.nodes[0].tenant("fraud", "{}", up)
	f.nodes[0].tenant("risk", "{}", nil)
	f.nodes[0].flood()
	victim := f.nodes[1]
	victim.must("", "audit", "verify")
	victim.stop()
	file := victim.segmentOf("tenant-fraud")
	pristine, err := os.ReadFile(file)
	check(t, err)
	edited := bytes.Replace(pristine, []byte("owner@fraud"), []byte("0wner@fraud"), 1)
	if bytes.Equal(edited, pristine) {
		t.Fatal("the log does not name the owner")
	}
	write(t, file, string(edited))
	check(t, os.RemoveAll(filepath.Dir(victim.segmentOf("tenant-risk"))))
	victim.start()
	eventually(t, "the damaged copy is whole again", func() error {
		if r := victim.run("", "audit", "verify"); r.code != 0 {
			return errors.New(r.err)
		}
		return nil
	})
	if now, err := os.ReadFile(file); err != nil || !bytes.HasPrefix(now, pristine) {
		t.Errorf("the file is not what it was: %v", err)
	}
	if aside, _ := filepath.Glob(filepath.Join(filepath.Dir(file), "damaged-*")); len(aside) != 1 {
		t.Errorf("what was edited was not kept: %v", aside)
	}
	eventually(t, "the trail tells of the repair", func() error {
		for _, r := range f.nodes[2].trail("--action", "audit.repaired") {
			if strings.Contains(r.Object, "tenant/fraud") && r.Node == victim.memberID() {
				return nil
			}
		}
		return errors.New("it does not")
	})
	victim.chat(200, k.Key, chat("x"))
}
