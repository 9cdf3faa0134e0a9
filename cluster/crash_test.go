package cluster

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
)

// childDir names the directory in which the test binary, started again, runs a
// node until it is killed.
const childDir = "BULKHEAD_CLUSTER_TEST_CHILD"

// child creates and revokes keys as fast as it can, printing the number of each
// acknowledged revocation.
func child(dir string) int {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	n, err := Open(ctx, Config{NodeID: "n1", Dir: dir, FailStop: func(err error) { fmt.Fprintln(os.Stderr, err); os.Exit(3) }})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if _, err := n.Propose(ctx, acme()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	for i := len(n.State().Keys("acme")); ; i++ {
		cmd := key(fmt.Sprintf("k%06d", i), 0)
		copy(cmd.Key.Hash, fmt.Sprintf("%d", i))
		_, err := n.Propose(ctx, cmd)
		if err == nil {
			_, err = n.Propose(ctx, &command.RevokeKey{ID: cmd.Key.ID})
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		fmt.Println(cmd.Key.ID)
	}
}

// A node that is killed while it works has everything that it acknowledged.
func TestKillLosesNothingAcknowledged(t *testing.T) {
	dir := t.TempDir()
	acked := map[string]bool{}
	for round := range 4 {
		for _, id := range runAndKill(t, dir, 20+30*round) {
			acked[id] = true
		}
	}
	n := openNode(t, Config{Dir: dir})
	for id := range acked {
		wantRevoked(t, n.State(), bulkhead.KeyID(id))
	}
	if len(acked) < 100 {
		t.Errorf("only %d acknowledged revocations: the test saw nothing", len(acked))
	}
}

func runAndKill(t *testing.T, dir string, after int) (acked []string) {
	t.Helper()
	cmd := exec.CommandContext(testContext(t), os.Args[0])
	cmd.Env = append(os.Environ(), childDir+"="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		acked = append(acked, lines.Text())
		if len(acked) == after {
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.Exited() {
		t.Fatalf("the child ended by itself: %v", err)
	}
	return acked
}
