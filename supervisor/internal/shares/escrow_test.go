package shares

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"filippo.io/age"
	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/seal"
)

// holdsBytes searches all files below dir.
func holdsBytes(t *testing.T, dir string, want []byte) (found bool) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		found = found || bytes.Contains(b, want)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func identity(t *testing.T) (*age.X25519Identity, age.Recipient) {
	t.Helper()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	r, err := ParseRecipient(id.Recipient().String())
	if err != nil {
		t.Fatal(err)
	}
	return id, r
}

// restoreAll uploads a file as the command line does.
func restoreAll(t *testing.T, n *simNode, file []byte, id age.Identity) map[bulkhead.TenantID]string {
	t.Helper()
	all, err := ReadEscrow(bytes.NewReader(file), id)
	if err != nil {
		t.Fatal(err)
	}
	defer all.Wipe()
	batches, err := all.Seal(n.w.box.PublicKey())
	if err != nil {
		t.Fatal(err)
	}
	out := map[bulkhead.TenantID]string{}
	for _, b := range batches {
		for _, e := range all.Shares {
			if bytes.Contains(b, e.Share) {
				t.Fatal("a share is uploaded in clear")
			}
		}
		done, err := n.ring.Restore(t.Context(), b)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range done {
			out[r.Tenant] = r.Error
		}
	}
	return out
}

func TestEscrowBringsSharesBackButNotDestroyedOnes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3)
		w.tenant("globex")
		w.tenant("idle") // has no data key yet
		n1 := w.nodes["n1"]
		_, acme := n1.key("acme")
		key, globex := n1.key("globex")
		time.Sleep(time.Second)
		id, recipient := identity(t)
		file, n, err := w.nodes["n2"].ring.Save(t.Context(), recipient)
		if err != nil || n != 2 {
			t.Fatalf("saved %d: %v", n, err)
		}
		share, _ := n1.store.Get("acme", acme)
		if bytes.Contains(file, share) {
			t.Fatal("the file holds a share in clear")
		}
		w.condemn("acme")
		w.shred("acme")
		for _, n := range w.nodes { // all disks of the cluster are lost
			if err := n.store.Forget("globex", globex); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := w.nodes["n3"].unwrap("globex"); code(err) != "share_unreachable" {
			t.Fatalf("lost: %v", err)
		}
		if _, _, err := n1.ring.Save(t.Context(), recipient); err == nil || !strings.Contains(err.Error(), "globex") {
			t.Fatalf("a file that lacks a share: %v", err)
		}
		got := restoreAll(t, n1, file, id)
		if got["globex"] != "" || got["acme"] == "" || len(got) != 2 {
			t.Fatalf("restored: %v", got)
		}
		if opened, err := w.nodes["n3"].unwrap("globex"); err != nil || !bytes.Equal(opened, key) {
			t.Fatalf("after the restore: %v", err)
		}
		time.Sleep(time.Minute)
		for _, n := range w.nodes {
			if holdsBytes(t, n.dir, share) {
				t.Errorf("%s has the destroyed share", n.id)
			}
		}
	})
}

// TestEscrowIsRefusedByAPeersTombstone: this node and the state know of no
// destruction; another member does.
func TestEscrowIsRefusedByAPeersTombstone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3)
		n1 := w.nodes["n1"]
		_, acme := n1.key("acme")
		time.Sleep(time.Second)
		id, recipient := identity(t)
		file, _, err := n1.ring.Save(t.Context(), recipient)
		if err != nil {
			t.Fatal(err)
		}
		share, _ := n1.store.Get("acme", acme)
		if err := w.nodes["n3"].store.Destroy("acme", acme); err != nil {
			t.Fatal(err)
		}
		for _, n := range []string{"n1", "n2"} {
			if err := w.nodes[n].store.Forget("acme", acme); err != nil {
				t.Fatal(err)
			}
		}
		if got := restoreAll(t, n1, file, id); got["acme"] == "" {
			t.Fatal("restored")
		}
		for _, n := range w.nodes {
			if holdsBytes(t, n.dir, share) {
				t.Errorf("%s has it", n.id)
			}
		}
	})
}

func TestReadEscrowRefuses(t *testing.T) {
	id, recipient := identity(t)
	stranger, _ := identity(t)
	make := func(plain string) []byte {
		var out bytes.Buffer
		w, err := age.Encrypt(&out, recipient)
		if err != nil {
			t.Fatal(err)
		}
		w.Write([]byte(plain))
		w.Close()
		return out.Bytes()
	}
	good := make(`{"format":"` + escrowFormat + `","shares":[]}`)
	if _, err := ReadEscrow(bytes.NewReader(good), id); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadEscrow(bytes.NewReader(good), stranger); err == nil {
		t.Error("a stranger's key opens it")
	}
	for name, file := range map[string][]byte{
		"nothing": nil, "cut": good[:len(good)-1], "other JSON": make(`{"format":"x"}`), "no JSON": make("shares"),
		"a wrong share": make(`{"format":"` + escrowFormat + `","shares":[{"tenant":"acme","id":"AAAA","share":"AAAA"}]}`),
	} {
		if _, err := ReadEscrow(bytes.NewReader(file), id); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	for _, bad := range []string{"", "age1", "ssh-ed25519 AAAA", id.String(), id.Recipient().String() + "\n" + stranger.Recipient().String(), "# " + id.Recipient().String()} {
		if _, err := ParseRecipient(bad); err == nil {
			t.Errorf("recipient %q: accepted", bad)
		}
	}
}

func TestManySharesAreUploadedInBatches(t *testing.T) {
	box, err := seal.New("test", []byte("0123456789abcdef0123456789abcdef"))
	if err != nil {
		t.Fatal(err)
	}
	var all Escrow
	for range 2*batchSize + 1 {
		share := seal.NewShare()
		all.Shares = append(all.Shares, Entry{bulkhead.TenantID(strings.Repeat("t", 63)), seal.ShareID(share), share})
	}
	batches, err := all.Seal(box.PublicKey())
	if err != nil || len(batches) != 3 {
		t.Fatalf("%d batches, %v", len(batches), err)
	}
	for _, b := range batches {
		if _, err := box.Open(RestoreContext, b); err != nil {
			t.Fatal(err)
		}
	}
}
