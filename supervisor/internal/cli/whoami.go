package cli

import (
	"net/http"
	"strings"

	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin/wire"
	"github.com/spf13/cobra"
)

func (a *app) whoamiCommand() *cobra.Command {
	return &cobra.Command{
		Use: "whoami", Short: "Print who the token belongs to, and what that admits to", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			var w wire.Whoami
			if err := cl.do(cmd.Context(), call{method: http.MethodGet, path: "/whoami"}, &w); err != nil {
				return err
			}
			t := table{columns: []string{"who", "method", "tenant", "role"}}
			who := firstOf(w.Email, w.Subject)
			for _, role := range w.Platform {
				t.add(who, w.Method, "", role)
			}
			for _, in := range w.Tenants {
				t.add(who, w.Method, string(in.Tenant), in.Role)
			}
			if len(t.rows) == 0 {
				t.add(who, w.Method, "", "none: ask a platform administrator for a role")
			}
			if a.output == tableOut || a.output == "" {
				if err := t.write(a.streams.Out); err != nil {
					return err
				}
				return write(a.streams.Out, []byte("\nmay: "+printable(strings.Join(w.Actions, ", "))+"\n"))
			}
			return a.print(t, w)
		},
	}
}
