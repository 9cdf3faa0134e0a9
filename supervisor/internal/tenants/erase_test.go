package tenants

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"github.com/bulkhead-ai/bulkhead/configs/manifest"
)

// erase begins the erasure of acme and leads it to a step.
func (n *node) erase(to string) {
	n.Helper()
	n.propose(&command.BeginErasure{ID: "e1", Tenant: "acme", Reason: "the team has left", By: "admin@bank.example"})
	for _, step := range []string{command.StepDrain, command.StepExport, command.StepRetain, command.StepShred, command.StepForget} {
		if step == to {
			break
		}
		if step != command.StepExport && step != command.StepRetain {
			n.propose(&command.AdvanceErasure{Tenant: "acme", ID: "e1", Step: step, Node: "n1"})
			if _, clustered := n.cluster.State().Cluster(); clustered {
				n.propose(&command.AdvanceErasure{Tenant: "acme", ID: "e1", Step: step, Node: "n2"})
			}
		}
		next := map[string]string{
			command.StepDrain: command.StepExport, command.StepExport: command.StepRetain, command.StepRetain: command.StepShred,
			command.StepShred: command.StepForget, command.StepForget: command.StepSnapshots,
		}[step]
		n.propose(&command.AdvanceErasure{Tenant: "acme", ID: "e1", Step: step, Next: next})
	}
	n.Sync()
}

// files lists what the node has of acme.
func (n *node) files() (found []string) {
	n.Helper()
	err := filepath.WalkDir(filepath.Join(n.dir, "tenants"), func(path string, _ fs.DirEntry, err error) error {
		if strings.Contains(filepath.Base(path), "acme") || strings.Contains(path, "acme/") {
			found = append(found, path)
		}
		return err
	})
	if err != nil {
		n.Fatal(err)
	}
	return found
}

func (n *node) eraseFiles() error {
	ctx, cancel := context.WithTimeout(n.Context(), hang)
	defer cancel()
	return n.EraseFiles(ctx, "acme")
}

func TestEraseFilesEndsTheWorkerAndLeavesNothing(t *testing.T) {
	n := newNode(t, Config{})
	lease := n.acquire()
	journal := filepath.Join(n.dir, "tenants", "acme", dataName, "journal")
	if err := errors.Join(os.MkdirAll(journal, 0o700), os.WriteFile(filepath.Join(journal, "0001"), []byte("ciphertext"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := n.eraseFiles(); !errors.Is(err, ErrInUse) {
		t.Fatalf("of a tenant that lives: %v", err)
	}
	n.erase(command.StepRetain)
	if err := n.eraseFiles(); !errors.Is(err, ErrInUse) || len(n.files()) == 0 {
		t.Fatalf("before its step: %v", err)
	}
	n.propose(&command.AdvanceErasure{Tenant: "acme", ID: "e1", Step: command.StepRetain, Next: command.StepShred})
	for range 2 {
		if err := n.eraseFiles(); err != nil {
			t.Fatal(err)
		}
		n.ended(lease)
		if left := n.files(); len(left) != 0 {
			t.Fatalf("left: %v", left)
		}
	}
	_, err := n.Acquire(t.Context(), "acme")
	if err == nil {
		t.Fatal("a worker of an erased tenant")
	}
	if left := n.files(); len(left) != 0 {
		t.Fatalf("asking for it made: %v", left)
	}
}

func TestEraseFilesGoesOnAfterACrash(t *testing.T) {
	n := newNode(t, Config{})
	n.erase(command.StepShred)
	half := filepath.Join(n.dir, "tenants", erasedPrefix+"acme", dataName)
	whole := filepath.Join(n.dir, "tenants", "acme", dataName)
	for _, left := range [][]string{{half}, {half, whole}, {whole}} {
		for _, dir := range left {
			if err := errors.Join(os.MkdirAll(dir, 0o700), os.WriteFile(filepath.Join(dir, "segment"), []byte("x"), 0o600)); err != nil {
				t.Fatal(err)
			}
		}
		if err := n.eraseFiles(); err != nil {
			t.Fatal(err)
		}
		if found := n.files(); len(found) != 0 {
			t.Fatalf("left: %v", found)
		}
	}
	if unbooked, err := n.env.dirs.unbooked(); err != nil || len(unbooked) != 0 {
		t.Fatalf("unbooked %v, %v", unbooked, err)
	}
}

// TestALaterTenantOfTheNameKeepsItsFiles: the erasure of the first one is over.
func TestALaterTenantOfTheNameKeepsItsFiles(t *testing.T) {
	n := newNode(t, Config{})
	n.acquire().Release()
	first, _ := n.cluster.State().Tenant("acme")
	n.erase(command.StepShred)
	if err := errors.Join(n.eraseFiles(), n.shares.Destroy("acme", first.ShareID)); err != nil {
		t.Fatal(err)
	}
	n.propose(&command.AdvanceErasure{Tenant: "acme", ID: "e1", Step: command.StepShred, Node: "n1"})
	n.propose(&command.AdvanceErasure{Tenant: "acme", ID: "e1", Step: command.StepShred, Next: command.StepForget})
	n.propose(&command.AdvanceErasure{Tenant: "acme", ID: "e1", Step: command.StepForget, Next: command.StepSnapshots})
	n.propose(&command.AdvanceErasure{Tenant: "acme", ID: "e1", Step: command.StepSnapshots, Node: "n1"})
	n.propose(&command.AdvanceErasure{Tenant: "acme", ID: "e1", Step: command.StepSnapshots, Next: command.StepCertify})
	n.propose(&command.AdvanceErasure{Tenant: "acme", ID: "e1", Step: command.StepCertify, Certificate: []byte("note"), Next: command.StepDone})
	if err := n.eraseFiles(); err != nil { // late, and there is no tenant any more
		t.Fatal(err)
	}
	n.apply(manifest.Object{Ref: ref(manifest.KindTenant, "", "acme"), TenantSpec: &manifest.Tenant{Owner: "o@bank.example", CostCenter: "CC-1"}})
	n.Sync()
	lease := n.acquire()
	second, _ := n.cluster.State().Tenant("acme")
	if string(second.ShareID) == string(first.ShareID) || len(second.ShareID) == 0 {
		t.Fatal("the same key share again")
	}
	if err := n.eraseFiles(); !errors.Is(err, ErrInUse) || len(n.files()) == 0 {
		t.Fatalf("its files were removed: %v", err)
	}
	n.mustGet(lease, "/start")
}

// TestNoWorkerWithoutTheKeyShare: a tenant whose share is gone is refused and
// never given a new key.
func TestNoWorkerWithoutTheKeyShare(t *testing.T) {
	n := newNode(t, Config{})
	n.acquire().Release()
	before, _ := n.cluster.State().Tenant("acme")
	if err := n.shares.Destroy("acme", before.ShareID); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), hang)
	defer cancel()
	n.Close(ctx)
	n.open(Config{})
	if _, err := n.Acquire(ctx, "acme"); err == nil || !strings.Contains(err.Error(), "share_destroyed") {
		t.Fatalf("without its share: %v", err)
	}
	after, _ := n.cluster.State().Tenant("acme")
	if string(after.DataKey) != string(before.DataKey) || after.Epoch != before.Epoch {
		t.Fatal("it got a new key or began an epoch")
	}
}

func TestEraseFilesMakesTheKeeperForget(t *testing.T) {
	c := newCopies()
	n := clustered(t, c)
	n.acquire().Release()
	now, _ := n.cluster.State().Tenant("acme")
	n.erase(command.StepShred)
	if err := n.eraseFiles(); err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(c.seen(), "forget acme 1") || now.Epoch != 1 {
		t.Fatalf("seen %v in epoch %d", c.seen(), now.Epoch)
	}
}
