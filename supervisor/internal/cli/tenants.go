package cli

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"

	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin/wire"
	"github.com/spf13/cobra"
)

func (a *app) tenantCommand() *cobra.Command {
	return group("tenant", "Suspend, resume, hold, export and delete tenants",
		a.tenantAction("suspend", "Refuse every request of a tenant and stop its worker"),
		a.tenantAction("resume", "Serve a suspended tenant again"),
		a.tenantDeleteCommand(), a.tenantHoldCommand(), a.tenantExportCommand(), a.tenantCertificateCommand(), a.tenantErasuresCommand())
}

func (a *app) tenantAction(verb, short string) *cobra.Command {
	return &cobra.Command{
		Use: verb + " NAME", Short: short, Args: exactArgs("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			var s wire.TenantState
			if err := cl.do(cmd.Context(), call{method: http.MethodPost, path: "/tenants/" + url.PathEscape(args[0]) + "/" + verb}, &s); err != nil {
				return err
			}
			t := table{columns: []string{"tenant", "suspended"}}
			t.add(string(s.Tenant), strconv.FormatBool(s.Suspended))
			return a.print(t, s)
		},
	}
}

func (a *app) tenantHoldCommand() *cobra.Command {
	var release bool
	c := &cobra.Command{
		Use: "hold NAME --reason WHY [--release]", Short: "Put a tenant under legal hold: nothing of it is destroyed until it is released", Args: exactArgs("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := a.needReason(cmd); err != nil {
				return err
			}
			cl, err := a.client()
			if err != nil {
				return err
			}
			var end wire.TenantEnd
			r := call{method: http.MethodPost, path: "/tenants/" + url.PathEscape(args[0]) + "/hold", body: wire.HoldTenant{Hold: !release}}
			if err := cl.do(cmd.Context(), r, &end); err != nil {
				return err
			}
			t := table{columns: []string{"tenant", "hold"}}
			t.add(string(end.Tenant), end.Hold)
			return a.print(t, end)
		},
	}
	c.Flags().BoolVar(&release, "release", false, "end the hold")
	return c
}

// needReason refuses a command that must say why.
func (a *app) needReason(cmd *cobra.Command) error {
	if a.reason == "" {
		return usagef("%s: --reason is missing: it goes into the audit trail and the certificate", cmd.CommandPath())
	}
	return nil
}

func (a *app) tenantErasuresCommand() *cobra.Command {
	return &cobra.Command{
		Use: "erasures", Short: "List the erasures of tenants, finished ones too", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			var list wire.Erasures
			if err := cl.do(cmd.Context(), call{method: http.MethodGet, path: "/erasures"}, &list); err != nil {
				return err
			}
			return a.print(erasureTable(list.Erasures...), list.Erasures)
		},
	}
}

func erasureTable(list ...wire.Erasure) table {
	t := table{columns: []string{"tenant", "id", "step", "waiting", "started_at", "finished_at", "by", "reason"}}
	for _, e := range list {
		finished := ""
		if !e.FinishedAt.IsZero() {
			finished = e.FinishedAt.Format(stampFormat)
		}
		t.add(string(e.Tenant), e.ID, e.Step, e.Waiting, e.StartedAt.Format(stampFormat), finished, e.By, e.Reason)
	}
	return t
}

const stampFormat = "2006-01-02T15:04:05Z07:00"

// tenantEnd asks what there is of a tenant.
func tenantEnd(ctx context.Context, cl *client, name string) (end wire.TenantEnd, err error) {
	err = cl.do(ctx, call{method: http.MethodGet, path: "/tenants/" + url.PathEscape(name) + "/erasure"}, &end)
	if err != nil {
		return end, fmt.Errorf("look at tenant %s: %w", name, err)
	}
	return end, nil
}
