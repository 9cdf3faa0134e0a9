package durable_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/bulkhead-ai/bulkhead/worker/durable"
)

func content(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// only fails unless the folder has exactly these names: nothing temporary stays.
func only(t *testing.T, dir string, names ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != len(names) {
		t.Fatalf("folder has %v, want %v", entries, names)
	}
	for i, e := range entries {
		if e.Name() != names[i] {
			t.Fatalf("folder has %v, want %v", entries, names)
		}
	}
}

func TestReplace(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a")
	for _, want := range []string{"one", "", "three"} {
		if err := durable.Replace(path, []byte(want)); err != nil {
			t.Fatal(err)
		}
		if got := content(t, path); got != want {
			t.Fatalf("file has %q, want %q", got, want)
		}
	}
	st, err := os.Stat(path)
	if err != nil || st.Mode() != 0o600 {
		t.Errorf("mode %v, %v; want 0600", st.Mode(), err)
	}
	only(t, dir, "a")
}

// A link that somebody put in the way is replaced, not followed.
func TestReplaceFollowsNoLink(t *testing.T) {
	dir, other := t.TempDir(), filepath.Join(t.TempDir(), "other")
	if err := os.WriteFile(other, []byte("theirs"), 0o600); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "a")
	if err := os.Symlink(other, path); err != nil {
		t.Fatal(err)
	}
	if err := durable.Replace(path, []byte("ours")); err != nil {
		t.Fatal(err)
	}
	if got := content(t, other); got != "theirs" {
		t.Errorf("the link's target has %q", got)
	}
}

func TestReplaceFails(t *testing.T) {
	dir := t.TempDir()
	if err := durable.Replace(filepath.Join(dir, "none", "a"), nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("in a folder that does not exist: %v", err)
	}
	if err := os.Mkdir(filepath.Join(dir, "a"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := durable.Replace(filepath.Join(dir, "a"), nil); err == nil {
		t.Error("a folder was replaced by a file")
	}
	only(t, dir, "a")
}

func TestCreateReplacesNothing(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a")
	if err := durable.Create(path, []byte("first")); err != nil {
		t.Fatal(err)
	}
	if err := durable.Create(path, []byte("second")); !errors.Is(err, fs.ErrExist) {
		t.Errorf("second creation: %v, want fs.ErrExist", err)
	}
	if got := content(t, path); got != "first" {
		t.Errorf("file has %q", got)
	}
	only(t, dir, "a")
}

func TestFileHasNoNameUntilCommit(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a")
	for _, commit := range []bool{false, true} {
		f, err := durable.New(path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteString("whole"); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Fatalf("the file shows before its commit: %v", err)
		}
		if commit {
			if err := f.Commit(); err != nil {
				t.Fatal(err)
			}
		}
		f.Discard()
		if !commit {
			only(t, dir)
		}
	}
	if got := content(t, path); got != "whole" {
		t.Errorf("file has %q", got)
	}
	only(t, dir, "a")
}

func TestCommitAs(t *testing.T) {
	dir := t.TempDir()
	f, err := durable.New(filepath.Join(dir, "upload"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Discard()
	if err := f.CommitAs(filepath.Join(dir, "digest")); err != nil {
		t.Fatal(err)
	}
	only(t, dir, "digest")
}

// What a killed process left goes; what only looks like it stays.
func TestSweep(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a")
	for range 2 {
		f, err := durable.New(path)
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	for _, other := range []string{"a", ".new", "new-b"} {
		if err := os.WriteFile(filepath.Join(dir, other), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := durable.Sweep(dir); err != nil {
		t.Fatal(err)
	}
	only(t, dir, ".new", "a", "new-b")
	if err := durable.Sweep(filepath.Join(dir, "none")); err != nil {
		t.Errorf("without a folder: %v", err)
	}
}

func TestRemove(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a")
	if err := durable.Replace(path, nil); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time there is nothing to remove
		if err := durable.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after Remove: %v", err)
	}
}
