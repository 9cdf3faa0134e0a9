package replica

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// TestForgetClosesTheCopyForGood: neither an owner elsewhere that goes on, nor one
// of the same epoch here, nor a restart brings the copy back; a later tenant of the
// name goes on above.
func TestForgetClosesTheCopyForGood(t *testing.T) {
	r := newRig(t, 3)
	o, err := r.own(0, OwnerConfig{})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(o.write(10, 100), o.catchUp("n1"), o.catchUp("n2")); err != nil {
		t.Fatal(err)
	}
	for _, n := range r.nodes[1:] {
		for range 2 {
			if err := n.k.Forget(tenant, r.epoch); err != nil {
				t.Fatal(err)
			}
			if err := os.RemoveAll(filepath.Join(n.dir, "tenants", string(tenant))); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := o.write(1, 0); err == nil {
		t.Fatal("acknowledged by copies that were forgotten")
	}
	<-o.done
	if !errors.Is(o.err, ErrFenced) {
		t.Fatalf("the owner ends with %v", o.err)
	}
	for _, n := range r.nodes {
		o.close()
		if err := n.k.Forget(tenant, r.epoch); err != nil {
			t.Fatal(err)
		}
		if err := os.RemoveAll(filepath.Join(n.dir, "tenants", string(tenant))); err != nil {
			t.Fatal(err)
		}
		n.stop()
		n.start()
		if _, err := os.Stat(n.journalDir()); !errors.Is(err, os.ErrNotExist) {
			t.Fatalf("%s has made the folder again: %v", n.id, err)
		}
	}
	r.epoch-- // the epoch that was destroyed, once more
	if _, err := r.own(1, OwnerConfig{}); !errors.Is(err, ErrFenced) || Promised(err) != r.epoch+1 {
		t.Fatalf("a straggler takes over: %v", err)
	}
	later, err := r.own(2, OwnerConfig{})
	if err != nil {
		t.Fatalf("a later tenant of the name: %v", err)
	}
	if err := errors.Join(later.write(3, 100), later.catchUp("n0"), later.catchUp("n1")); err != nil {
		t.Fatal(err)
	}
	r.sameFiles(0, 1, 2)
}
