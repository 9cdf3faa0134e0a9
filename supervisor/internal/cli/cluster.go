package cli

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin/wire"
	"github.com/spf13/cobra"
)

func (a *app) clusterCommand() *cobra.Command {
	return group("cluster", "Begin, extend, watch and repair a cluster",
		a.clusterInitCommand(), a.clusterTokenCommand(), a.clusterJoinCommand(), a.clusterStatusCommand(),
		a.clusterDrainCommand(), a.clusterTransferCommand(), a.clusterRemoveCommand(),
		a.snapshotCommand(), a.sharesCommand(), a.clusterRecoverCommand())
}

func (a *app) clusterTokenCommand() *cobra.Command {
	ttl := time.Hour
	c := &cobra.Command{
		Use: "token", Short: "Create a token with which one node may join, and print it, this once", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if ttl < time.Second || ttl > 7*24*time.Hour {
				return usagef("--expires-in: want 1s to 168h")
			}
			// Before the token is made: it could not be shown again.
			out, err := a.output.or(tableOut, tableOut, jsonOut, yamlOut)
			if err != nil {
				return err
			}
			cl, err := a.client()
			if err != nil {
				return err
			}
			var t wire.JoinToken
			r := call{method: http.MethodPost, path: "/cluster/tokens", body: wire.CreateToken{ExpiresIn: int64(ttl / time.Second)}}
			if err := cl.do(cmd.Context(), r, &t); err != nil {
				return err
			}
			if out == tableOut { // the token alone, as $(bulkhead cluster token) wants it
				if a.streams.Progress {
					fmt.Fprintf(a.streams.Err, "For one node, until %s: bulkhead cluster join --config FILE --token TOKEN\n", t.ExpiresAt.Local().Format(time.DateTime))
				}
				return write(a.streams.Out, []byte(t.Token+"\n"))
			}
			return a.print(table{}, t)
		},
	}
	c.Flags().DurationVar(&ttl, "expires-in", ttl, "how long the token lives")
	return c
}

func (a *app) clusterStatusCommand() *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "Show members, leader, failure tolerance, leases and where tenants are", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			var st wire.ClusterStatus
			if err := cl.do(cmd.Context(), call{method: http.MethodGet, path: "/cluster"}, &st); err != nil {
				return err
			}
			out, err := a.output.or(tableOut, tableOut, jsonOut, yamlOut, csvOut)
			if err != nil {
				return err
			}
			if out == tableOut {
				fmt.Fprintf(a.streams.Out, "cluster %s, leader %s, term %d, index %d, feature level %d, failure tolerance %d\n",
					printable(st.ID), firstOf(printable(st.Leader), "none"), st.Term, st.Index, st.Level, st.FailureTolerance)
				if st.LackCopies > 0 {
					fmt.Fprintf(a.streams.Out, "the journals of %d tenants lack copies\n", st.LackCopies)
				}
				fmt.Fprintln(a.streams.Out)
			}
			if err := a.print(statusTable(&st), st); err != nil || out != tableOut || len(st.Unassigned) == 0 {
				return err
			}
			t := table{columns: []string{"unassigned", "reason"}}
			for _, u := range st.Unassigned {
				t.add(string(u.Tenant), u.Reason)
			}
			fmt.Fprintln(a.streams.Out)
			return t.write(a.streams.Out)
		},
	}
}

func statusTable(st *wire.ClusterStatus) table {
	t := table{columns: []string{"node", "addr", "role", "state", "tenants", "lease_left", "last_contact", "lag", "replica_lag", "fsync_p99", "version"}}
	for _, n := range st.Nodes {
		contact := "never"
		if n.LastContactMS >= 0 {
			contact = milliseconds(float64(n.LastContactMS))
		}
		t.add(n.ID, n.Addr, role(n), nodeState(n), strconv.Itoa(n.Tenants), milliseconds(float64(n.LeaseLeftMS)), contact,
			strconv.FormatUint(n.Lag, 10), strconv.FormatInt(n.ReplicaLag, 10), milliseconds(n.FsyncP99MS), n.Version)
	}
	return t
}

func milliseconds(ms float64) string { return strconv.FormatFloat(ms, 'f', -1, 64) + "ms" }

func role(n wire.NodeStatus) string {
	switch {
	case n.Leader:
		return "leader"
	case n.Voter:
		return "voter"
	}
	return "learner"
}

func nodeState(n wire.NodeStatus) string {
	state := "dead"
	if n.Alive {
		state = "alive"
	}
	if n.Draining {
		state += ", draining"
	}
	if n.DiskFull {
		state += ", disk full"
	}
	return state
}

func (a *app) clusterTransferCommand() *cobra.Command {
	return &cobra.Command{
		Use: "transfer [NODE]", Short: "Hand leadership to another node",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usagef("%s: want at most one NODE", cmd.CommandPath())
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			var done wire.Transferred
			r := call{method: http.MethodPost, path: "/cluster/transfer", body: wire.Transfer{To: strings.Join(args, "")}}
			if err := cl.do(cmd.Context(), r, &done); err != nil {
				return err
			}
			t := table{columns: []string{"leader"}}
			t.add(done.Leader)
			return a.print(t, done)
		},
	}
}

func (a *app) clusterRemoveCommand() *cobra.Command {
	var acceptLoss bool
	c := &cobra.Command{
		Use: "remove NODE", Short: "End a node's membership for ever; refused when fewer than two live voters would stay", Args: exactArgs("NODE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			r := call{method: http.MethodDelete, path: "/cluster/nodes/" + url.PathEscape(args[0])}
			if acceptLoss {
				r.query = url.Values{"accept_loss": {"true"}}
			}
			return cl.do(cmd.Context(), r, nil)
		},
	}
	c.Flags().BoolVar(&acceptLoss, "accept-loss", false, "go on with the copies of journals that are left; what only the lost nodes held is gone")
	return c
}
