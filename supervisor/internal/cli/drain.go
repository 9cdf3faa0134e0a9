package cli

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin/wire"
	"github.com/spf13/cobra"
)

// drainPoll is how often drain --wait looks.
const drainPoll = 500 * time.Millisecond

func (a *app) clusterDrainCommand() *cobra.Command {
	var off, wait bool
	var patience time.Duration
	c := &cobra.Command{
		Use: "drain NODE", Short: "Move a node's tenants to others, one by one, and let none come", Args: exactArgs("NODE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if off && wait {
				return usagef("drain: --wait waits until the node is empty; with --off there is nothing to wait for")
			}
			if patience <= 0 {
				return usagef("--timeout: want a positive duration")
			}
			cl, err := a.client()
			if err != nil {
				return err
			}
			var n wire.NodeStatus
			r := call{method: http.MethodPost, path: "/cluster/nodes/" + url.PathEscape(args[0]) + "/drain", body: wire.Drain{Off: off}}
			if err := cl.do(cmd.Context(), r, &n); err != nil {
				return err
			}
			if wait {
				ctx, cancel := context.WithTimeout(cmd.Context(), patience)
				defer cancel()
				if n, err = a.awaitEmpty(ctx, cl, n); err != nil {
					return err
				}
			}
			st := wire.ClusterStatus{Nodes: []wire.NodeStatus{n}}
			t := statusTable(&st)
			return a.print(t.pick("node", "state", "tenants"), n)
		},
	}
	c.Flags().BoolVar(&off, "off", false, "end it: tenants may come again")
	c.Flags().BoolVar(&wait, "wait", false, "return when the node has no tenant any more")
	c.Flags().DurationVar(&patience, "timeout", 30*time.Minute, "longest wait; the move itself goes on")
	return c
}

// awaitEmpty polls until the node has no tenant. A moment without an answer is
// part of such a move, when it is the leader's node.
func (a *app) awaitEmpty(ctx context.Context, cl *client, n wire.NodeStatus) (wire.NodeStatus, error) {
	most := n.Tenants
	tick := time.NewTicker(drainPoll)
	defer tick.Stop()
	var last error
	for {
		a.drawMoves(most-n.Tenants, most, n.Tenants == 0)
		if n.Tenants == 0 {
			return n, nil
		}
		select {
		case <-ctx.Done():
			err := fmt.Errorf("wait for %s to be empty: %d tenants are still there: %w", n.ID, n.Tenants, ctx.Err())
			if last != nil {
				err = fmt.Errorf("%w (%w)", err, last)
			}
			return n, err
		case <-tick.C:
		}
		var st wire.ClusterStatus
		if last = cl.do(ctx, call{method: http.MethodGet, path: "/cluster"}, &st); last != nil {
			continue
		}
		now, ok := find(&st, n.ID)
		if !ok {
			return n, fmt.Errorf("node %s is no member any more", n.ID)
		}
		if !now.Draining {
			return now, fmt.Errorf("the drain of %s was ended; %d tenants are there", n.ID, now.Tenants)
		}
		n, most = now, max(most, now.Tenants)
	}
}

func find(st *wire.ClusterStatus, id string) (wire.NodeStatus, bool) {
	for _, n := range st.Nodes {
		if n.ID == id {
			return n, true
		}
	}
	return wire.NodeStatus{}, false
}

// drawMoves draws how many tenants have moved, on a terminal.
func (a *app) drawMoves(moved, all int, last bool) {
	if !a.streams.Progress || all == 0 {
		return
	}
	const width = 40
	done := moved * width / all
	fmt.Fprintf(a.streams.Err, "\r[%s%s] %d of %d tenants moved", strings.Repeat("=", done), strings.Repeat(" ", width-done), moved, all)
	if last {
		fmt.Fprintln(a.streams.Err)
	}
}
