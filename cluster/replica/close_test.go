package replica

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
)

// TestCloseDoesNotWaitForAFence: a stream that waits for the end of a worker, or
// for a state that no longer follows the log, must not keep the node from ending.
func TestCloseDoesNotWaitForAFence(t *testing.T) {
	waiting := make(chan struct{})
	there, err := OpenKeeper(KeeperConfig{
		Node: "n1", MetaDir: t.TempDir(), MinFree: -1, Dir: func(bulkhead.TenantID) string { return t.TempDir() },
		Fence: func(ctx context.Context, _ bulkhead.TenantID, _ bulkhead.Epoch) error {
			close(waiting)
			<-ctx.Done()
			return ctx.Err()
		},
	})
	must(t, err)
	served := make(chan struct{})
	here, err := OpenKeeper(KeeperConfig{
		Node: "n0", MetaDir: t.TempDir(), MinFree: -1, Dir: func(bulkhead.TenantID) string { return t.TempDir() },
		Open: func(context.Context, string) (net.Conn, error) {
			a, b := net.Pipe()
			go func() { defer close(served); there.HandleStream(context.Background(), "n0", b) }()
			return a, nil
		},
	})
	must(t, err)
	defer here.Close()
	go here.dial(t.Context(), command.Replica{Node: "n1", Receiver: there.Receiver()}, tenant, 7)
	<-waiting
	closed := make(chan error, 1)
	go func() { closed <- there.Close() }()
	select {
	case err := <-closed:
		must(t, err)
		<-served
	case <-time.After(time.Minute):
		t.Fatal("Close waits for a fence")
	}
}
