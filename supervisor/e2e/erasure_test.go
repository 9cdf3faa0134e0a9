package e2e_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// ending is what `tenant delete -o json` prints of a plan that is done.
type ending struct {
	Erasure     erasure
	Certificate string
	Key         string
}

// erasure is a plan as `tenant erasures -o json` shows it.
type erasure struct {
	ID, Tenant, Step, Waiting string
	KeysRevoked               int `json:"keys_revoked"`
}

// Canaries of a tenant that will be erased.
const (
	erasedCredential = "sk-canary-erased-credential-41c7"
	erasedPrompt     = "canary prompt of a team that leaves 9be2"
	erasedPerson     = "canary.person.77d0@fraud.example"
	erasedFeature    = "canary-feature-c3a9"
)

// TestErasureOnRawDisks (V60): one command ends a tenant. Its keys are dead on all
// nodes, its neighbour notices nothing, bill and audit log stay, and no file of
// any node holds a key, a credential, a prompt or what its log was sealed with. A
// backup from before does not bring it back: it is erased again, its key never
// works, and its journal, put back from an image of the disk, is unreadable.
func TestErasureOnRawDisks(t *testing.T) {
	t.Parallel()
	f, up := startFleet(t, 3, ""), startUpstream(t)
	first := f.nodes[0]
	first.more = []string{"UPSTREAM_KEY=" + erasedCredential}
	fraud, risk := first.tenant("fraud", "{}", nil), first.tenant("risk", "{}", up)
	first.provider("fraud", "up", up, ", credential: {env: UPSTREAM_KEY}")
	for _, n := range f.nodes {
		n.chat(200, fraud.Key, chat(erasedPrompt), "X-Bulkhead-User", erasedPerson, "X-Bulkhead-Feature", erasedFeature)
		n.chat(200, risk.Key, chat("x"))
	}
	bill := first.booked("fraud", 3)
	if bill.Served != 3 {
		t.Fatalf("booked %+v", bill)
	}
	backup := filepath.Join(first.dir, "before.bhsnap")
	first.must("", "cluster", "snapshot", "save", backup)
	needles := f.needles(fraud.Key, backup)
	f.keepDisks("fraud")
	for _, name := range []string{"SHA-256 of the key (base64)", "key share", "wrapped data key (base64)"} {
		if len(f.search(map[string][]byte{name: needles[name]})) == 0 {
			t.Fatalf("%s is nowhere though the tenant lives: the search proves nothing", name)
		}
	}

	neighbour := f.nodes[1].stream(risk.Key, chat("[[up gate=neighbour]]", `"stream":true`))
	neighbour.next()
	leaving := f.nodes[2].stream(fraud.Key, chat("[[up gate=never]]", `"stream":true`))
	leaving.next()
	end := decode[ending](t, first.must("", "tenant", "delete", "fraud", "--reason", "case 12: the team has left", "--yes", "-o", "json"))
	if end.Erasure.Step != "done" || end.Erasure.KeysRevoked != 1 {
		t.Errorf("the plan ended as %+v", end.Erasure)
	}
	for _, n := range f.nodes {
		if a := n.post(fraud.Key, "chat/completions", chat("x")); a.status != 401 {
			t.Errorf("the key on %s: %s", n.memberID(), a)
		}
	}
	if rest := leaving.rest(); len(rest) > 0 && rest[len(rest)-1] == "[DONE]" {
		t.Errorf("a stream of the erased tenant ended as a whole one: %q", rest)
	}
	up.gate("neighbour").release()
	neighbour.whole()
	first.certified(end)
	if row := f.nodes[1].usage("tenant", "--tenant", "fraud"); len(row) != 1 || row[0].Requests < 3 || row[0].Served != 3 {
		t.Errorf("the bill after the erasure: %+v", row)
	}
	trail := f.nodes[2].must("", "audit", "--tenant", "fraud", "-o", "json")
	if !strings.Contains(trail, "case 12: the team has left") || !strings.Contains(trail, `"tenant.erased"`) || !strings.Contains(trail, `"create-key"`) {
		t.Errorf("the audit log after the erasure: %s", trail)
	}
	f.nodes[2].must("", "audit", "verify", "--tenant", "fraud")
	if r := first.run("", "logs", "--tenant", "fraud"); r.code != 1 {
		t.Errorf("the log of an erased tenant: exit %d %s", r.code, r.out)
	}
	for _, trace := range f.search(needles) {
		t.Errorf("after the erasure: %s", trace)
	}

	// The backup knows the tenant, its key and its wrapped data key. The disks get
	// the journal back, too.
	f.putDisksBack("fraud")
	follower := f.follower()
	if r := follower.run("", "cluster", "snapshot", "restore", backup); r.code != 1 || !strings.Contains(r.err, "reason") {
		t.Errorf("a restore without a reason: exit %d %s", r.code, r.err)
	}
	follower.must("", "cluster", "snapshot", "restore", backup, "--reason", "drill")
	again := 0
	eventually(t, "the tenant is erased again", func() error {
		for _, n := range f.nodes {
			if a, err := n.try(t.Context(), fraud.Key, "chat/completions", chat("x")); err == nil && a.status == 200 {
				again++
			}
		}
		if r := first.run("", "logs", "--tenant", "fraud", "-o", "json"); r.code == 0 && strings.Contains(r.out, "req_") {
			t.Errorf("the log is readable again: %.300s", r.out)
		}
		e, err := first.plan("fraud")
		if err != nil || e.Step != "done" || e.ID == end.Erasure.ID {
			return fmt.Errorf("%+v, %v", e, err)
		}
		return nil
	})
	if again > 0 {
		t.Errorf("the key of the erased tenant worked %d times after the restore", again)
	}
	f.nodes[1].chat(200, risk.Key, chat("x"))
	if trail := first.must("", "audit", "--tenant", "fraud", "--action", "tenant.restored", "-o", "json"); !strings.Contains(trail, "fraud") {
		t.Errorf("nothing tells that the tenant was back: %s", trail)
	}
	check(t, os.Remove(backup))
	for _, n := range f.nodes {
		check(t, os.RemoveAll(n.image()))
		n.stop()
	}
	for _, trace := range f.search(needles) {
		t.Errorf("after the restore: %s", trace)
	}
}

// certified checks a certificate offline: it holds, and no changed one does.
func (n *node) certified(end ending) {
	t := n.t
	t.Helper()
	offline := &node{t: t, dir: n.dir} // no address, no token
	file := filepath.Join(n.dir, "certificate")
	write(t, file, end.Certificate)
	if out := offline.must("", "tenant", "certificate", "--verify", file, "--key", end.Key); !strings.Contains(out, end.Erasure.ID) {
		t.Errorf("the certificate says %s", out)
	}
	at := map[string]int{
		"a letter of the reason":  strings.Index(end.Certificate, "left"),
		"a digit of the time":     strings.Index(end.Certificate, "202"),
		"the tenant":              strings.Index(end.Certificate, end.Erasure.Tenant),
		"a byte of the signature": len(end.Certificate) - 12,
	}
	for what, i := range at {
		if i < 0 {
			t.Errorf("%s is not in the certificate: %s", what, end.Certificate)
			continue
		}
		changed := []byte(end.Certificate)
		changed[i] ^= 1
		write(t, file, string(changed))
		if r := offline.run("", "tenant", "certificate", "--verify", file, "--key", end.Key); r.code != 1 {
			t.Errorf("a certificate with %s changed: exit %d %s", what, r.code, r.out)
		}
	}
	check(t, os.Remove(file))
}

// plan is the newest plan for a tenant.
func (n *node) plan(tenant string) (found erasure, err error) {
	r := n.run("", "tenant", "erasures", "-o", "json")
	if r.code != 0 {
		return found, fmt.Errorf("tenant erasures: exit %d %s", r.code, r.err)
	}
	for _, e := range decode[[]erasure](n.t, r.out) {
		if e.Tenant == tenant {
			found = e
		}
	}
	return found, nil
}

// needles is what must be nowhere after the erasure of tenant fraud, by name.
func (f *fleet) needles(key, backup string) map[string][]byte {
	t := f.t
	t.Helper()
	sum := sha256.Sum256([]byte(key))
	out := map[string][]byte{
		"key": []byte(key), "credential": []byte(erasedCredential), "prompt": []byte(erasedPrompt), "person": []byte(erasedPerson), "feature": []byte(erasedFeature),
		"SHA-256 of the key (raw)": sum[:], "SHA-256 of the key (hex)": []byte(hex.EncodeToString(sum[:])),
		"SHA-256 of the key (base64)": []byte(base64.StdEncoding.EncodeToString(sum[:])),
	}
	for _, n := range f.nodes {
		files, err := filepath.Glob(filepath.Join(n.data(), "shares", "fraud.*.share"))
		check(t, err)
		if len(files) != 1 {
			t.Fatalf("%s has %d key shares of fraud", n.memberID(), len(files))
		}
		b, err := os.ReadFile(files[0])
		check(t, err)
		share := b[36:68] // see package shares
		out["key share"], out["key share (base64)"], out["key share (hex)"] = share, []byte(base64.StdEncoding.EncodeToString(share)), []byte(hex.EncodeToString(share))
	}
	// The wrapped data key is in the backup, in the record of the tenant.
	raw, err := os.ReadFile(backup)
	check(t, err)
	at := bytes.Index(raw, out["SHA-256 of the key (base64)"])
	if at < 0 {
		t.Fatal("the backup does not know the key")
	}
	shareID := sha256.Sum256(out["key share"])
	m := regexp.MustCompile(`"data_key":"([^"]+)","share_id":"` + regexp.QuoteMeta(base64.StdEncoding.EncodeToString(shareID[:]))).FindSubmatch(raw)
	if m == nil {
		t.Fatal("the backup has no data key that the share belongs to")
	}
	wrapped, err := base64.StdEncoding.DecodeString(string(m[1]))
	check(t, err)
	out["wrapped data key (base64)"], out["wrapped data key (raw)"] = m[1], wrapped
	return out
}

// search looks for traces in all files below the nodes' data folders.
func (f *fleet) search(needles map[string][]byte) (traces []string) {
	f.t.Helper()
	for _, n := range f.nodes {
		check(f.t, filepath.WalkDir(n.data(), func(path string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil // the node works on
			}
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			content, err := os.ReadFile(path)
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			for name, needle := range needles {
				if at := bytes.Index(content, needle); at >= 0 {
					traces = append(traces, fmt.Sprintf("%s is in %s of %s at %d: ...%q...", name, path, n.memberID(), at, content[max(0, at-80):min(len(content), at+80)]))
				}
			}
			return err
		}))
	}
	return traces
}

// keepDisks keeps an image of what the nodes have of a tenant's log: the owner its
// journal and logbook, the others copies of the journal.
func (f *fleet) keepDisks(tenant string) {
	f.t.Helper()
	for _, n := range f.nodes {
		check(f.t, os.MkdirAll(n.image(), 0o700))
		copyTree(f.t, filepath.Join(n.data(), "tenants", tenant), filepath.Join(n.image(), tenant))
		if files, _ := filepath.Glob(filepath.Join(n.image(), tenant, "data", "*")); len(files) == 0 {
			f.t.Fatalf("%s has nothing of %s", n.memberID(), tenant)
		}
	}
}

// putDisksBack puts the image back under running nodes.
func (f *fleet) putDisksBack(tenant string) {
	f.t.Helper()
	for _, n := range f.nodes {
		copyTree(f.t, filepath.Join(n.image(), tenant), filepath.Join(n.data(), "tenants", tenant))
	}
}

func (n *node) image() string { return filepath.Join(n.dir, "image") }
