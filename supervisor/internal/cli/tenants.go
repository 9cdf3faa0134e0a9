package cli

import (
	"net/http"
	"net/url"
	"strconv"

	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin/wire"
	"github.com/spf13/cobra"
)

func (a *app) tenantCommand() *cobra.Command {
	return group("tenant", "Suspend and resume tenants",
		a.tenantAction("suspend", "Refuse every request of a tenant and stop its worker"),
		a.tenantAction("resume", "Serve a suspended tenant again"))
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
