package lease

import (
	"slices"
	"testing"
	"time"
)

const s = time.Second

// term is when a node is gone that was not heard again.
const term = TTL + Margin

func TestNewLeaderGivesEverybodyAFullTerm(t *testing.T) {
	tab := NewTable()
	nodes := []string{"n1", "n2", "n3"}
	if tab.Renewed("n1", "b", 0) || tab.Expired(time.Hour, nodes) != nil {
		t.Error("a table without leadership grants or judges")
	}
	tab.Reset(100 * s)
	if tab.Renewed("n1", "b", 100*s) {
		t.Error("granted before a majority confirmed the leader")
	}
	tab.Confirm(100 * s)
	if !tab.Renewed("n1", "b", 100*s+ConfirmFor-1) {
		t.Error("refused though confirmed")
	}
	if tab.Renewed("n1", "b", 100*s+ConfirmFor) {
		t.Error("granted on an old confirmation")
	}
	for _, c := range []struct {
		at   time.Duration
		want []string
	}{
		{100*s + term - 1, nil},
		{100*s + term, []string{"n2", "n3"}},
		{100*s + term + ConfirmFor - 2, []string{"n2", "n3"}},
		{100*s + term + ConfirmFor, nodes},
	} {
		if got := tab.Expired(c.at, nodes); !slices.Equal(got, c.want) {
			t.Errorf("gone at %v: %v, want %v", c.at, got, c.want)
		}
	}
	tab.Reset(105 * s)
	if got := tab.Expired(105*s+term-1, nodes); got != nil {
		t.Errorf("gone within the second term: %v", got)
	}
	tab.Stop()
	if tab.Expired(time.Hour, nodes) != nil {
		t.Error("judges after the leadership")
	}
	if _, ok := tab.GoneAt("n1"); ok {
		t.Error("knows when a node is gone after the leadership")
	}
}

func TestConfirmationOfAnEarlierLeadershipCountsForNothing(t *testing.T) {
	tab := NewTable()
	tab.Reset(100 * s)
	tab.Confirm(100*s - ConfirmFor/2) // asked before this leadership, answered within
	if tab.Renewed("n1", "b", 100*s) {
		t.Error("granted")
	}
}

func TestGoodbyeCountsAtOnceAndOnlyForItsProcess(t *testing.T) {
	tab := NewTable()
	tab.Reset(0)
	renewed := func(boot string, at time.Duration) {
		t.Helper()
		tab.Confirm(at)
		if !tab.Renewed("n1", boot, at) {
			t.Fatalf("refused at %v", at)
		}
	}
	renewed("first", 10*s)
	tab.Release("n1", "first")
	if got := tab.Expired(10*s, []string{"n1"}); len(got) != 1 {
		t.Error("not gone after its goodbye")
	}
	if _, ok := tab.Heard("n1", 10*s); ok {
		t.Error("heard of after its goodbye")
	}
	renewed("second", 11*s)
	tab.Release("n1", "first") // on its way for a second
	if got := tab.Expired(12*s, []string{"n1"}); got != nil {
		t.Error("a late goodbye of the process before took the lease of the present one")
	}
	if ago, ok := tab.Heard("n1", 12*s); !ok || ago != s {
		t.Errorf("heard %v ago, %v", ago, ok)
	}
	tab.Release("n2", "never renewed")
	if at, _ := tab.GoneAt("n2"); at != TTL+Margin {
		t.Errorf("a node that never renewed is gone at %v", at)
	}
}

func TestRenewalsOutOfOrderDoNotShorten(t *testing.T) {
	tab := NewTable()
	tab.Reset(0)
	tab.Confirm(10 * s)
	tab.Renewed("n1", "b", 10*s+100*time.Millisecond)
	tab.Renewed("n1", "b", 10*s)
	if at, _ := tab.GoneAt("n1"); at != 10*s+term+100*time.Millisecond {
		t.Errorf("gone at %v", at)
	}
}
