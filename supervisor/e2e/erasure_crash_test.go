package e2e_test

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
)

// TestErasureSurvivesCrashes: a plan goes on wherever kill -9 stopped it. It
// destroys nothing before the owner has the archive, nor under a legal hold, and
// ends with one certificate.
func TestErasureSurvivesCrashes(t *testing.T) {
	t.Parallel()
	n, up := startServer(t, ""), startUpstream(t)
	n.more = []string{"UPSTREAM_KEY=" + erasedCredential}
	k := n.tenant("fraud", "{}", nil)
	n.provider("fraud", "up", up, ", credential: {env: UPSTREAM_KEY}")
	asked := n.chat(200, k.Key, chat(erasedPrompt), "X-Bulkhead-User", erasedPerson)
	n.booked("fraud", 1)
	owner, err := age.GenerateX25519Identity()
	check(t, err)
	recipient := owner.Recipient().String()

	// A hold refuses the plan.
	n.must("", "tenant", "hold", "fraud", "--reason", "case 9: a court asks")
	if r := n.run("", "tenant", "delete", "fraud", "--reason", "x", "--yes"); r.code != 1 || !strings.Contains(r.err, "hold") {
		t.Errorf("deleted under a legal hold: exit %d %s%s", r.code, r.out, r.err)
	}
	n.chat(200, k.Key, chat("x"))
	n.must("", "tenant", "hold", "fraud", "--reason", "case 9: the court has it", "--release")
	if r := n.run("", "tenant", "delete", "fraud", "--yes"); r.code != 2 || !strings.Contains(r.err, "--reason") {
		t.Errorf("deleted without a reason: exit %d %s%s", r.code, r.out, r.err)
	}

	// The plan waits for the archive. Access has ended already.
	n.must("", "tenant", "delete", "fraud", "--reason", "case 12: the team has left", "--recipient", recipient, "--yes")
	id := n.at("fraud", "export").ID
	n.chat(401, k.Key, chat("x"))
	n.crash()
	if e := n.at("fraud", "export"); e.ID != id {
		t.Errorf("another plan after the crash: %+v", e)
	}
	n.chat(401, k.Key, chat("x"))

	// A hold that comes now is honoured at the next step, also after a crash.
	n.must("", "tenant", "hold", "fraud", "--reason", "case 10: another court")
	file := filepath.Join(n.dir, "fraud.tar.age")
	n.must("", "tenant", "export", "fraud", "--recipient", recipient, "-f", file)
	n.readArchive(file, owner, asked.id(), k.Key)
	eventually(t, "the plan waits for the end of the hold", func() error {
		if e := n.at("fraud", "retain"); !strings.Contains(e.Waiting, "another court") {
			return fmt.Errorf("%+v", e)
		}
		return nil
	})
	n.crash()
	if e := n.at("fraud", "retain"); e.ID != id {
		t.Errorf("another plan after the crash: %+v", e)
	}
	shares, _ := filepath.Glob(filepath.Join(n.data(), "shares", "fraud.*.share"))
	if len(shares) != 1 {
		t.Errorf("the key share under a legal hold: %v", shares)
	}
	n.must("", "tenant", "hold", "fraud", "--reason", "case 10: done", "--release")

	// From here on every step is the last one of a node that dies.
	seen := n.crashAtEveryStep("fraud", id)
	t.Logf("killed at %v", seen)
	if len(seen) < 2 {
		t.Errorf("killed at %v only: the story tells too little", seen)
	}
	certificate := n.must("", "tenant", "certificate", "fraud")
	n.crash()
	if again := n.must("", "tenant", "certificate", "fraud"); again != certificate || !strings.Contains(certificate, id) {
		t.Errorf("the certificate has changed from\n%s to\n%s", certificate, again)
	}
	list := decode[[]erasure](t, n.must("", "tenant", "erasures", "-o", "json"))
	if len(list) != 1 || list[0].ID != id || list[0].Step != "done" {
		t.Errorf("plans: %+v", list)
	}
	if row := n.booked("fraud", 2); row.Served != 2 {
		t.Errorf("the bill after the erasure: %+v", row)
	}
	n.must("", "audit", "verify")
	if shares, _ := filepath.Glob(filepath.Join(n.data(), "shares", "fraud.*.share")); len(shares) > 0 {
		t.Errorf("key shares are left: %v", shares)
	}
}

// TestErasureNeedsEveryNode: a node that is down keeps the plan from its end, for
// its disk still has the key share, whoever leads meanwhile. When it comes back it
// does its part, and the plan ends.
func TestErasureNeedsEveryNode(t *testing.T) {
	t.Parallel()
	f, up := startFleet(t, 3, ""), startUpstream(t)
	k := f.nodes[0].tenant("fraud", "{}", up)
	f.nodes[0].chat(200, k.Key, chat(erasedPrompt))
	f.nodes[0].booked("fraud", 1)
	absent := f.others(f.owner("fraud"))[0]
	absent.kill()
	r := f.running().run("", "tenant", "delete", "fraud", "--reason", "case 12", "--yes", "--timeout", "15s")
	if want := "not confirmed by " + absent.memberID(); r.code != 1 || !strings.Contains(r.err, want) {
		t.Errorf("deleted without %s: exit %d, want 1 and %q: %s%s", absent.memberID(), r.code, want, r.out, r.err)
	}
	for _, n := range f.others(absent) {
		n.chat(401, k.Key, chat("x"))
	}
	if r := f.running().run("", "tenant", "certificate", "fraud"); r.code != 1 {
		t.Errorf("a certificate of what is not over: exit %d %s", r.code, r.out)
	}
	shares := filepath.Join(absent.data(), "shares", "fraud.*.share")
	if left, _ := filepath.Glob(shares); len(left) != 1 {
		t.Fatalf("the node that is down has %d key shares: the story proves nothing", len(left))
	}
	for _, n := range f.others(absent) { // one of them leads
		n.crash()
	}
	absent.start()
	e := f.nodes[0].at("fraud", "done")
	if left, _ := filepath.Glob(shares); len(left) != 0 {
		t.Errorf("the key share is on the node that came back: %v", left)
	}
	if certificate := absent.must("", "tenant", "certificate", "fraud"); !strings.Contains(certificate, e.ID) || !strings.Contains(certificate, absent.memberID()) {
		t.Errorf("the certificate: %s", certificate)
	}
	for _, n := range f.nodes {
		n.chat(401, k.Key, chat("x"))
	}
}

// crash is a power cut.
func (n *node) crash() {
	n.t.Helper()
	n.kill()
	n.nothingLeft()
	n.start()
}

// at waits until the plan is at a step, and answers it.
func (n *node) at(tenant, step string) (e erasure) {
	n.t.Helper()
	eventually(n.t, "the plan is at "+step, func() (err error) {
		if e, err = n.plan(tenant); err == nil && e.Step != step {
			err = fmt.Errorf("%+v", e)
		}
		return err
	})
	return e
}

// crashAtEveryStep kills the node whenever the plan is seen at a step for the
// first time, until the plan is done. A step that is shorter than a look is not
// seen.
func (n *node) crashAtEveryStep(tenant, id string) (seen []string) {
	n.t.Helper()
	deadline := time.Now().Add(2 * hanging)
	for time.Now().Before(deadline) {
		a := n.get("/admin/v1/erasures", n.env["BULKHEAD_TOKEN"])
		step := ""
		for _, e := range decode[struct{ Erasures []erasure }](n.t, a.body).Erasures {
			if e.Tenant == tenant {
				step = e.Step
				if e.ID != id {
					n.t.Fatalf("another plan: %+v", e)
				}
			}
		}
		if step == "done" {
			return seen
		}
		if step != "retain" && !slices.Contains(seen, step) {
			seen = append(seen, step)
			n.crash()
		}
	}
	n.t.Fatalf("the plan is not done; killed at %v", seen)
	return nil
}

// readArchive decrypts an export: the requests are in it, and nothing secret.
func (n *node) readArchive(file string, owner age.Identity, request, key string) {
	t := n.t
	t.Helper()
	f, err := os.Open(file)
	check(t, err)
	defer f.Close()
	plain, err := age.Decrypt(f, owner)
	check(t, err)
	content := map[string]string{}
	for files := tar.NewReader(plain); ; {
		h, err := files.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		check(t, err)
		b, err := io.ReadAll(files)
		check(t, err)
		content[h.Name] = string(b)
	}
	for name, want := range map[string]string{
		"requests-000001.ndjson": request, "objects-000001.yaml": "owner@fraud.example", "keys-000001.csv": "bot", "usage-000001.ndjson": `"served":2`, "audit-000001.ndjson": "another court",
	} {
		if !strings.Contains(content[name], want) {
			t.Errorf("%s of the archive lacks %q: %.2000s", name, want, content[name])
		}
	}
	for line := range strings.Lines(content["requests-000001.ndjson"]) {
		if !json.Valid([]byte(line)) {
			t.Errorf("a line of the archive is no JSON: %s", line)
		}
	}
	for name, text := range content {
		for _, secret := range []string{key, erasedCredential, erasedPrompt} {
			if strings.Contains(text, secret) {
				t.Errorf("%q is in %s of the archive", secret, name)
			}
		}
	}
	if stranger, err := age.GenerateX25519Identity(); err != nil {
		t.Error(err)
	} else if _, err := f.Seek(0, io.SeekStart); err != nil {
		t.Error(err)
	} else if _, err := age.Decrypt(f, stranger); err == nil {
		t.Error("a stranger opens the archive")
	}
}
