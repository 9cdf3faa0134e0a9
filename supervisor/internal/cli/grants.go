package cli

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin/wire"
	"github.com/spf13/cobra"
)

// maxGrant is the longest life of a grant.
const maxGrant = 30 * 24 * time.Hour

func (a *app) grantCommand() *cobra.Command {
	return group("grant", "Let a person read a tenant's log for a time; only the tenant's owner can",
		a.grantCreateCommand(), a.grantListCommand(), a.grantRevokeCommand())
}

func (a *app) grantCreateCommand() *cobra.Command {
	var tenant string
	var g wire.CreateGrant
	var expires time.Duration
	c := &cobra.Command{
		Use: "create --tenant TENANT --to EMAIL --expires-in 2h --reason TEXT", Short: "Let a person read the tenant's log for a time", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := required(cmd, "tenant", "to", "reason"); err != nil {
				return err
			}
			if expires < time.Second || expires > maxGrant {
				return usagef("--expires-in: want up to 720h")
			}
			g.Reason, g.Scope, g.ExpiresIn = a.reason, "logs", int64(expires/time.Second)
			cl, err := a.client()
			if err != nil {
				return err
			}
			var made wire.Grant
			if err := cl.do(cmd.Context(), call{method: http.MethodPost, path: grantsPath(tenant), body: g}, &made); err != nil {
				return err
			}
			return a.print(grantTable(made), made)
		},
	}
	f := c.Flags()
	f.StringVar(&tenant, "tenant", "", "whose log (required)")
	f.StringVar(&g.To, "to", "", "e-mail address of who may read it (required)")
	f.StringSliceVar(&g.Envs, "env", nil, "only this environment; may be repeated")
	f.DurationVar(&expires, "expires-in", 0, "how long, at most 720h (required)")
	return c
}

func (a *app) grantListCommand() *cobra.Command {
	var tenant string
	c := &cobra.Command{
		Use: "list --tenant TENANT", Short: "List who may read the tenant's log, and who might", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := required(cmd, "tenant"); err != nil {
				return err
			}
			cl, err := a.client()
			if err != nil {
				return err
			}
			var list wire.Grants
			if err := cl.do(cmd.Context(), call{method: http.MethodGet, path: grantsPath(tenant)}, &list); err != nil {
				return err
			}
			return a.print(grantTable(list.Grants...), list.Grants)
		},
	}
	c.Flags().StringVar(&tenant, "tenant", "", "whose log (required)")
	return c
}

func (a *app) grantRevokeCommand() *cobra.Command {
	var tenant string
	c := &cobra.Command{
		Use: "revoke --tenant TENANT ID", Short: "End a grant before its time", Args: exactArgs("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := required(cmd, "tenant"); err != nil {
				return err
			}
			cl, err := a.client()
			if err != nil {
				return err
			}
			return cl.do(cmd.Context(), call{method: http.MethodDelete, path: grantsPath(tenant) + "/" + url.PathEscape(args[0])}, nil)
		},
	}
	c.Flags().StringVar(&tenant, "tenant", "", "whose log (required)")
	return c
}

func grantsPath(tenant string) string { return "/tenants/" + url.PathEscape(tenant) + "/grants" }

func grantTable(grants ...wire.Grant) table {
	t := table{columns: []string{"id", "tenant", "to", "scope", "envs", "by", "reason", "created_at", "expires_at", "live"}}
	for _, g := range grants {
		t.add(g.ID, string(g.Tenant), g.To, g.Scope, firstOf(strings.Join(g.Envs, " "), "all"), g.By, g.Reason,
			stamp(g.CreatedAt), stamp(g.ExpiresAt), strconv.FormatBool(g.Live))
	}
	return t
}
