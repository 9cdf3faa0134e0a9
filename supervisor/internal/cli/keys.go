package cli

import (
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin/wire"
	"github.com/spf13/cobra"
)

func (a *app) keyCommand() *cobra.Command {
	return group("key", "Create, rotate, revoke and list API keys",
		a.keyCreateCommand(), a.keyRotateCommand(), a.keyRevokeCommand(), a.keyListCommand())
}

func (a *app) keyCreateCommand() *cobra.Command {
	var k wire.CreateKey
	var tenant string
	var expires time.Duration
	c := &cobra.Command{
		Use: "create", Short: "Create a key for a service account and print it, this once", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := required(cmd, "tenant", "project", "env", "service-account"); err != nil {
				return err
			}
			k.Tenant = bulkhead.TenantID(tenant)
			if expires < 0 {
				return usagef("--expires-in must not be negative")
			}
			if expires > 0 {
				k.ExpiresAt = time.Now().Add(expires).UTC()
			}
			return a.mint(cmd, call{method: http.MethodPost, path: "/keys", body: k})
		},
	}
	f := c.Flags()
	f.StringVar(&tenant, "tenant", "", "tenant (required)")
	f.StringVar(&k.Project, "project", "", "project (required)")
	f.StringVar(&k.Env, "env", "", "prod, test or sandbox (required)")
	f.StringVar(&k.ServiceAccount, "service-account", "", "service account that the key belongs to (required)")
	f.StringVar(&k.Owner, "owner", "", "e-mail address of who answers for the key (default: the service account's owner)")
	f.StringSliceVar(&k.Models, "model", nil, "allow only this model; may be repeated")
	f.StringSliceVar(&k.Endpoints, "endpoint", nil, "allow only this endpoint, such as chat/completions; may be repeated")
	f.DurationVar(&expires, "expires-in", 0, "how long the key lives, such as 720h (default: for ever)")
	return c
}

func (a *app) keyRotateCommand() *cobra.Command {
	return &cobra.Command{
		Use: "rotate ID", Short: "Create a successor with the same scopes and print it; the old key stays until it is revoked", Args: exactArgs("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.mint(cmd, call{method: http.MethodPost, path: "/keys/" + url.PathEscape(args[0]) + "/rotate"})
		},
	}
}

// mint prints a new key. The format is checked before the key is made: it could
// not be shown again.
func (a *app) mint(cmd *cobra.Command, r call) error {
	if _, err := a.output.or(tableOut, tableOut, jsonOut, yamlOut, csvOut); err != nil {
		return err
	}
	cl, err := a.client()
	if err != nil {
		return err
	}
	var k wire.KeyCreated
	if err := cl.do(cmd.Context(), r, &k); err != nil {
		return err
	}
	t := table{columns: []string{"id", "key"}}
	t.add(string(k.ID), k.Key)
	if a.streams.Progress {
		fmt.Fprintln(a.streams.Err, "Keep the key now: only its hash is stored.")
	}
	return a.print(t, k)
}

func (a *app) keyRevokeCommand() *cobra.Command {
	return &cobra.Command{
		Use: "revoke ID", Short: "End a key for ever; when this returns, it is refused", Args: exactArgs("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			var k wire.Key
			if err := cl.do(cmd.Context(), call{method: http.MethodPost, path: "/keys/" + url.PathEscape(args[0]) + "/revoke"}, &k); err != nil {
				return err
			}
			return a.print(keyTable(k), k)
		},
	}
}

func (a *app) keyListCommand() *cobra.Command {
	var tenant string
	c := &cobra.Command{
		Use: "list", Short: "List keys, never the keys themselves", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			var list wire.Keys
			if err := cl.do(cmd.Context(), call{method: http.MethodGet, path: "/keys", query: query("tenant", tenant)}, &list); err != nil {
				return err
			}
			return a.print(keyTable(list.Keys...), list.Keys)
		},
	}
	c.Flags().StringVar(&tenant, "tenant", "", "only this tenant's keys")
	return c
}

func keyTable(keys ...wire.Key) table {
	t := table{columns: []string{"id", "display", "tenant", "project", "env", "service_account", "owner", "created_at", "expires_at", "revoked_at"}}
	for _, k := range keys {
		t.add(string(k.ID), k.Display, string(k.Tenant), k.Project, k.Env, k.ServiceAccount, k.Owner,
			stamp(k.CreatedAt), stamp(k.ExpiresAt), stamp(k.RevokedAt))
	}
	return t
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}
