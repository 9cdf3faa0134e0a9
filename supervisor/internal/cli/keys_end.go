package cli

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin/wire"
	"github.com/spf13/cobra"
)

func (a *app) keyRevokeCommand() *cobra.Command {
	var of wire.RevokeKeys
	var tenant string
	c := &cobra.Command{
		Use: "revoke ID", Short: "End a key for ever, or all keys of a person or a service account; when this returns, they are refused",
		Args: func(cmd *cobra.Command, args []string) error {
			many := of.Owner != "" || of.ServiceAccount != ""
			switch {
			case !many && len(args) != 1:
				return usagef("%s: want ID, or --tenant with --owner or --service-account", cmd.CommandPath())
			case many && len(args) > 0:
				return usagef("%s: want either ID or --owner and --service-account", cmd.CommandPath())
			case many:
				return nil
			}
			return keyID(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				if err := required(cmd, "tenant"); err != nil {
					return err
				}
				of.Tenant = bulkhead.TenantID(tenant)
				return a.revokeKeys(cmd, of)
			}
			cl, err := a.client()
			if err != nil {
				return err
			}
			var k wire.Key
			if err := cl.do(cmd.Context(), call{method: http.MethodPost, path: "/keys/" + url.PathEscape(args[0]) + "/revoke"}, &k); err != nil {
				return err
			}
			return a.printKeys([]wire.Key{k}, k)
		},
	}
	f := c.Flags()
	f.StringVar(&tenant, "tenant", "", "with --owner or --service-account: whose keys")
	f.StringVar(&of.Project, "project", "", "with --service-account: of this project only")
	f.StringVar(&of.Owner, "owner", "", "all keys of this person, who has left")
	f.StringVar(&of.ServiceAccount, "service-account", "", "all keys of this service account")
	return c
}

func (a *app) revokeKeys(cmd *cobra.Command, of wire.RevokeKeys) error {
	cl, err := a.client()
	if err != nil {
		return err
	}
	var list wire.Keys
	if err := cl.do(cmd.Context(), call{method: http.MethodPost, path: "/keys/revoke", body: of}, &list); err != nil {
		return err
	}
	return a.printKeys(list.Keys, list.Keys)
}

func (a *app) keyUnwrapCommand() *cobra.Command {
	return &cobra.Command{
		Use: "unwrap TOKEN", Short: "Spend a link's token and print its key, this once; TOKEN - reads it from standard input", Args: exactArgs("TOKEN"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if _, err := a.output.or(tableOut, tableOut, jsonOut, yamlOut, csvOut); err != nil {
				return err
			}
			token, err := a.linkToken(args[0])
			if err != nil {
				return err
			}
			cl, err := a.stranger()
			if err != nil {
				return err
			}
			var k wire.Unwrapped
			if err := cl.do(cmd.Context(), call{method: http.MethodPost, path: "/unwrap", body: wire.Unwrap{Token: token}, once: true}, &k); err != nil {
				return err
			}
			t := table{columns: []string{"id", "key"}}
			t.add(string(k.ID), k.Key)
			return a.print(t, k)
		},
	}
}

// linkToken takes a token or a whole link.
func (a *app) linkToken(arg string) (string, error) {
	if arg == "-" {
		line, err := bufio.NewReader(io.LimitReader(a.streams.In, 4096)).ReadString('\n')
		if err != nil && err != io.EOF {
			return "", fmt.Errorf("read token: %w", err)
		}
		arg = line
	}
	if _, token, ok := strings.Cut(arg, "#"); ok {
		arg = token
	}
	if arg = strings.TrimSpace(arg); arg == "" {
		return "", usagef("no token: give what bulkhead key create --wrap printed")
	}
	return arg, nil
}

func (a *app) keyRotationsCommand() *cobra.Command {
	var tenant string
	c := &cobra.Command{
		Use: "rotations", Short: "List old keys that still work beside their successors, and whether somebody uses them", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			var list wire.Rotations
			if err := cl.do(cmd.Context(), call{method: http.MethodGet, path: "/keys/rotations", query: query("tenant", tenant)}, &list); err != nil {
				return err
			}
			t := table{columns: []string{"id", "successor", "tenant", "project", "env", "service_account", "owner", "rotated_at", "ends_at", "last_used", "in_use", "requests_since"}}
			for _, r := range list.Rotations {
				t.add(string(r.ID), string(r.Successor), string(r.Tenant), r.Project, r.Env, r.ServiceAccount, r.Owner,
					stamp(r.RotatedAt), stamp(r.EndsAt), stamp(r.LastUsed), strconv.FormatBool(r.InUse), strconv.FormatInt(r.RequestsSince, 10))
			}
			return a.print(t, list.Rotations)
		},
	}
	c.Flags().StringVar(&tenant, "tenant", "", "only this tenant's keys")
	return c
}
