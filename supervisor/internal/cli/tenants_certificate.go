package cli

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"

	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin/wire"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/erasure"
	"github.com/spf13/cobra"
)

// maxCertificate bounds a certificate's file in bytes.
const maxCertificate = 64 << 10

func (a *app) tenantCertificateCommand() *cobra.Command {
	var file, verify, key string
	c := &cobra.Command{
		Use:   "certificate NAME [-f FILE] | certificate --verify FILE --key KEY",
		Short: "Print a tenant's certificate of destruction, or verify one offline",
		Args: func(cmd *cobra.Command, args []string) error {
			if verify != "" {
				return noArgs(cmd, args)
			}
			return exactArgs("NAME")(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if verify != "" {
				if err := required(cmd, "key"); err != nil {
					return err
				}
				return a.verifyCertificate(verify, key)
			}
			return a.showCertificate(cmd, args[0], file)
		},
	}
	c.Flags().StringVarP(&file, "file", "f", "", "write it there")
	c.Flags().StringVar(&verify, "verify", "", "verify this file; no node is asked")
	c.Flags().StringVar(&key, "key", "", "verifier key that you were given before")
	return c
}

func (a *app) showCertificate(cmd *cobra.Command, name, file string) error {
	out, err := a.output.or(tableOut, tableOut, jsonOut, yamlOut)
	if err != nil {
		return err
	}
	cl, err := a.client()
	if err != nil {
		return err
	}
	var c wire.Certificate
	if err := cl.do(cmd.Context(), call{method: http.MethodGet, path: tenantPath(name, "certificate")}, &c); err != nil {
		return err
	}
	if file != "" {
		if err := os.WriteFile(file, []byte(c.Certificate), 0o644); err != nil {
			return fmt.Errorf("write certificate: %w", err)
		}
		t := table{columns: []string{"tenant", "file", "key"}}
		t.add(name, file, c.Key)
		return a.print(t, c)
	}
	switch out {
	case jsonOut:
		return writeJSON(a.streams.Out, c)
	case yamlOut:
		return writeYAML(a.streams.Out, c)
	}
	return write(a.streams.Out, []byte(c.Certificate))
}

func (a *app) verifyCertificate(file, key string) error {
	f, err := os.Open(file)
	if err != nil {
		return fmt.Errorf("open certificate: %w", err)
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxCertificate))
	if err != nil {
		return fmt.Errorf("read certificate: %w", err)
	}
	c, err := erasure.VerifyCertificate(raw, key)
	if err != nil {
		return err
	}
	t := table{columns: []string{"tenant", "cluster", "plan", "certified", "nodes", "keys_revoked", "share", "reason"}}
	nodes := map[string]bool{}
	for _, n := range c.Nodes {
		nodes[n.Node] = true
	}
	t.add(string(c.Tenant), c.Cluster, c.Plan, c.Certified.Format(stampFormat), strconv.Itoa(len(nodes)), strconv.Itoa(c.KeysRevoked), c.Share, c.Reason)
	return a.print(t, c)
}
