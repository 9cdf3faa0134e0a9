package lease

import (
	"errors"
	"math"
	"os"
	"testing"
	"time"

	cluster "github.com/bulkhead-ai/bulkhead/cluster/lease"
	"golang.org/x/sys/unix"
)

func now(t testing.TB) time.Duration {
	t.Helper()
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		t.Fatal(err)
	}
	return time.Duration(ts.Nano())
}

// mapped is the supervisor's page and a worker's look at it.
func mapped(t testing.TB) (*cluster.Page, *Page) {
	t.Helper()
	theirs, err := cluster.NewPage()
	if err != nil {
		t.Fatal(err)
	}
	f, err := theirs.File()
	if err != nil {
		t.Fatal(err)
	}
	ours, err := Map(f)
	f.Close()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ours.Close(); theirs.Close() })
	return theirs, ours
}

func TestCheck(t *testing.T) {
	theirs, ours := mapped(t)
	for _, c := range []struct {
		until int64
		held  bool
	}{
		{0, false}, {math.MinInt64, false}, {math.MaxInt64, true}, {int64(now(t) + margin), false},
		{int64(now(t) + time.Hour), true}, {int64(now(t) - 1), false},
	} {
		theirs.SetDeadline(c.until)
		if err := ours.Check(); (err == nil) != c.held || err != nil && !errors.Is(err, ErrLost) {
			t.Errorf("until %d: %v", c.until, err)
		}
	}
	theirs.Close() // the supervisor ends
	if err := ours.Check(); !errors.Is(err, ErrLost) {
		t.Errorf("without a supervisor: %v", err)
	}
	var alone *Page
	if alone.Check() != nil || alone.Close() != nil {
		t.Error("no page is no lease")
	}
}

func TestMapRefuses(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	if _, err := Map(r); err == nil {
		t.Error("mapped a pipe")
	}
}

func BenchmarkCheck(b *testing.B) {
	theirs, ours := mapped(b)
	for name, until := range map[string]int64{"alone": math.MaxInt64, "cluster": int64(now(b) + time.Hour)} {
		b.Run(name, func(b *testing.B) {
			theirs.SetDeadline(until)
			for b.Loop() {
				if ours.Check() != nil {
					b.Fatal("lost")
				}
			}
		})
	}
}
