package logbook

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/bulkhead-ai/bulkhead/worker/internal/journal"
)

// TestDiskHoldsCiphertextOnly searches every file of journal and logbook for what
// a tenant's log says, while they are written and afterwards: without the data key
// there must be nothing to read, or destroying the key would not erase.
func TestDiskHoldsCiphertextOnly(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "journal")
	j, err := journal.Open(journal.Config{Dir: dir, Tenant: "acme", DataKey: dataKey[:], MinFree: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	if _, err := j.Begin(1, nil); err != nil {
		t.Fatal(err)
	}
	fill(t, j, 2000)
	cfg := testConfig(t, j)
	l := mustOpen(t, cfg)
	if got := len(ask(t, l, Filter{Limit: 5000})); got != 2000 {
		t.Fatalf("%d rows", got)
	}
	r := testReceipt(101)
	plain := [][]byte{[]byte("owner@bank.example"), []byte("chat/completions"), []byte(r.Request), []byte(r.Request)[4:], []byte(r.Feature), []byte(`"model"`)}
	search := func(when string) {
		files := 0
		for _, dir := range []string{cfg.Dir, dir} {
			err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
				if err != nil || !e.Type().IsRegular() {
					return err
				}
				raw, err := os.ReadFile(path)
				if err != nil {
					return err
				}
				files++
				for _, p := range plain {
					if bytes.Contains(raw, p) {
						t.Errorf("%s: %s holds %q", when, filepath.Base(path), p)
					}
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		if files < 5 {
			t.Fatalf("%s: only %d files were searched", when, files)
		}
	}
	search("open")
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	search("closed")
}
