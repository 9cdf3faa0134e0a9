package cli

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin/wire"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/apikey"
	"github.com/spf13/cobra"
)

func (a *app) keyCommand() *cobra.Command {
	return group("key", "Create, hand over, rotate, revoke and list API keys",
		a.keyCreateCommand(), a.keyRotateCommand(), a.keyRevokeCommand(), a.keyListCommand(), a.keyRotationsCommand(), a.keyUnwrapCommand())
}

func (a *app) keyCreateCommand() *cobra.Command {
	var k wire.CreateKey
	var tenant string
	var expires, wrap time.Duration
	c := &cobra.Command{
		Use: "create", Short: "Create a key for a service account, or a person's own one, and print it, this once", Args: noArgs,
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
			var err error
			if k.WrapSeconds, err = seconds("wrap", wrap); err != nil {
				return err
			}
			return a.mint(cmd, call{method: http.MethodPost, path: "/keys", body: k})
		},
	}
	f := c.Flags()
	f.StringVar(&tenant, "tenant", "", "tenant (required)")
	f.StringVar(&k.Project, "project", "", "project (required)")
	f.StringVar(&k.Env, "env", "", "prod, test or sandbox (required)")
	f.StringVar(&k.ServiceAccount, "service-account", "", "service account that the key belongs to (required)")
	f.StringVar(&k.Owner, "owner", "", "e-mail address of who answers for the key (default: the service account's owner; of a personal key: you)")
	f.StringVar(&k.Label, "label", "", "a note for people")
	f.StringVar(&k.Service, "service", "", "what the key is for (default: the service account's)")
	f.BoolVar(&k.Personal, "personal", false, "your own key, for test or sandbox; it ends after 8 hours unless --expires-in says else")
	f.StringSliceVar(&k.Models, "model", nil, "allow only this model; may be repeated")
	f.StringSliceVar(&k.Endpoints, "endpoint", nil, "allow only this endpoint, such as chat/completions; may be repeated")
	f.StringSliceVar(&k.Sources, "source", nil, "allow only this address or CIDR, such as 10.1.0.0/16; may be repeated")
	f.DurationVar(&expires, "expires-in", 0, "how long the key lives, such as 720h (default: as long as policies allow)")
	f.DurationVar(&wrap, "wrap", 0, wrapUsage)
	return c
}

const wrapUsage = "print a link instead of the key: it gives the key to one reader, and only for so long, such as 1h"

// seconds reads a duration that travels as whole seconds; 0 is not given.
func seconds(flag string, d time.Duration) (int64, error) {
	if d < 0 || d%time.Second != 0 {
		return 0, usagef("--%s %s: want whole seconds, such as 90s or 24h", flag, d)
	}
	return int64(d / time.Second), nil
}

func (a *app) keyRotateCommand() *cobra.Command {
	var overlap, wrap time.Duration
	c := &cobra.Command{
		Use: "rotate ID", Short: "Create a successor with the same scopes and print it; the old key ends after the overlap", Args: keyID,
		RunE: func(cmd *cobra.Command, args []string) error {
			both, err := seconds("overlap", overlap)
			if err != nil {
				return err
			}
			link, err := seconds("wrap", wrap)
			if err != nil {
				return err
			}
			body := wire.RotateKey{OverlapSeconds: &both, WrapSeconds: link}
			return a.mint(cmd, call{method: http.MethodPost, path: "/keys/" + url.PathEscape(args[0]) + "/rotate", body: body})
		},
	}
	c.Flags().DurationVar(&overlap, "overlap", 24*time.Hour, "how long the old key works beside its successor, at most 2160h; 0 revokes it at once")
	c.Flags().DurationVar(&wrap, "wrap", 0, wrapUsage)
	return c
}

// keyID wants the id of a key. Who gives the key itself is told so before it
// travels any further than the list of processes.
func keyID(cmd *cobra.Command, args []string) error {
	if len(args) == 1 && strings.HasPrefix(args[0], apikey.Prefix) {
		return usagef("%s: that is a key; want its id, which begins with key_ (bulkhead key list shows it beside the key's last four characters)", cmd.CommandPath())
	}
	return exactArgs("ID")(cmd, args)
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
	t, note := table{columns: []string{"id", "key"}}, "Keep the key now: only its hash is stored."
	if t.add(string(k.ID), k.Key); k.LinkToken != "" {
		t = table{columns: []string{"id", "link_token", "link", "expires_at"}}
		t.add(string(k.ID), k.LinkToken, k.Link, stamp(k.ExpiresAt))
		note = "Send the link: whoever runs bulkhead key unwrap with it first gets the key."
	}
	if a.streams.Progress {
		fmt.Fprintln(a.streams.Err, note)
	}
	return a.print(t, k)
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
			return a.printKeys(list.Keys, list.Keys)
		},
	}
	c.Flags().StringVar(&tenant, "tenant", "", "only this tenant's keys")
	return c
}

// printKeys leaves out on a terminal what is for programs.
func (a *app) printKeys(keys []wire.Key, value any) error {
	t := keyTable(keys...)
	if a.output == "" || a.output == tableOut {
		t = t.pick("id", "display", "tenant", "project", "env", "service_account", "owner", "label", "last_used", "requests", "expires_at", "revoked_at", "successor")
	}
	return a.print(t, value)
}

func keyTable(keys ...wire.Key) table {
	t := table{columns: []string{
		"id", "display", "tenant", "project", "env", "service_account", "owner", "created_at", "expires_at", "revoked_at",
		"label", "service", "personal", "sources", "created_by", "last_used", "requests", "successor", "predecessor",
	}}
	for _, k := range keys {
		t.add(string(k.ID), k.Display, string(k.Tenant), k.Project, k.Env, k.ServiceAccount, k.Owner,
			stamp(k.CreatedAt), stamp(k.ExpiresAt), stamp(k.RevokedAt),
			k.Label, k.Service, strconv.FormatBool(k.Personal), strings.Join(k.Sources, " "), k.CreatedBy,
			stamp(k.LastUsed), strconv.FormatInt(k.Requests, 10), string(k.Successor), string(k.Predecessor))
	}
	return t
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}
