package daemon

import (
	"errors"
	"testing"

	"go.uber.org/zap"
)

// A node is full before its workers refuse anything, and not again until it has
// clearly more: tenants must not go to and fro.
func TestRoom(t *testing.T) {
	var free int64
	var broken error
	r := &room{free: func() (int64, error) { return free, broken }, minFree: 100, log: zap.NewNop()}
	for _, step := range []struct {
		free   int64
		broken error
		full   bool
	}{
		{free: 1000}, {free: 150}, {free: 149, full: true}, {free: 199, full: true},
		{free: 1000, broken: errors.New("I/O error"), full: true},
		{free: 200}, {free: 151}, {free: 0, full: true},
	} {
		free, broken = step.free, step.broken
		if r.look(); r.Full() != step.full {
			t.Fatalf("with %d bytes free: full %t, want %t", step.free, r.Full(), step.full)
		}
	}
}

func TestFreeBytes(t *testing.T) {
	free, err := freeBytes(t.TempDir())
	if err != nil || free <= 0 {
		t.Errorf("%d bytes, %v", free, err)
	}
	if _, err := freeBytes(t.TempDir() + "/none"); err == nil {
		t.Error("no error for a folder that does not exist")
	}
}
