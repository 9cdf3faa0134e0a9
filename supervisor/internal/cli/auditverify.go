package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"

	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin/wire"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/trail"
	"github.com/bulkhead-ai/bulkhead/worker/durable"
	"github.com/spf13/cobra"
	"golang.org/x/mod/sumdb/note"
)

func (a *app) auditVerifyCommand() *cobra.Command {
	var tenant, file, key string
	c := &cobra.Command{
		Use:   "verify [--file FILE --key KEY]",
		Short: "Hold the audit trail against its chain, tree and signed checkpoints: a node's, or an export without any node",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case (file == "") != (key == ""):
				return usagef("--file and --key belong together: an export does not prove itself")
			case file != "" && tenant != "":
				return usagef("--file and --tenant: an export is of one log")
			case file != "":
				return a.verifyExport(file, key)
			}
			return a.verifyAudit(cmd.Context(), tenant)
		},
	}
	f := c.Flags()
	f.StringVar(&tenant, "tenant", "", "only this tenant's log (default: all logs)")
	f.StringVar(&file, "file", "", "an export; no node is asked")
	f.StringVar(&key, "key", "", "the public key, or a file with it (see bulkhead audit key)")
	return c
}

// verifyAudit fails unless every log holds.
func (a *app) verifyAudit(ctx context.Context, tenant string) error {
	cl, err := a.client()
	if err != nil {
		return err
	}
	var reports []trail.LogReport
	var end wire.AuditEnd
	take := func(r io.Reader) error {
		reports, end = nil, wire.AuditEnd{}
		in := bufio.NewScanner(r)
		in.Buffer(make([]byte, 64<<10), maxLine)
		for in.Scan() && !end.End {
			var line wire.AuditEnd
			if err := json.Unmarshal(in.Bytes(), &line); err != nil {
				return fmt.Errorf("read report: %w", err)
			}
			if line.End {
				end = line
				continue
			}
			var report trail.LogReport
			if err := json.Unmarshal(in.Bytes(), &report); err != nil {
				return fmt.Errorf("read report: %w", err)
			}
			reports = append(reports, report)
		}
		return in.Err()
	}
	if err := cl.do(ctx, call{method: http.MethodGet, path: "/audit/verify", query: query("tenant", tenant), stream: take}, nil); err != nil {
		return err
	}
	if !end.End || end.Logs != len(reports) {
		return errors.New("the answer was cut off: nothing is proven")
	}
	if err := a.print(verifyTable(reports), reports); err != nil {
		return err
	}
	return verdict(reports, end.OK)
}

// verdict is an error unless all of it holds, whatever the node concluded.
func verdict(reports []trail.LogReport, ok bool) error {
	var lines []string
	for _, r := range reports {
		ok = ok && r.OK
		for _, f := range r.Findings {
			lines = append(lines, fmt.Sprintf("log %s, records %d to %d: %s", r.Log, f.From, f.To, printable(f.Why)))
		}
	}
	if ok {
		return nil
	}
	return errors.New(strings.Join(append([]string{"the audit trail does not hold"}, lines...), "\n  "))
}

func verifyTable(reports []trail.LogReport) table {
	t := table{columns: []string{"log", "ok", "records", "signed", "checkpoints", "first_damaged", "why"}}
	for _, r := range reports {
		first, why := "", ""
		if len(r.Findings) > 0 {
			first, why = strconv.FormatUint(r.Findings[0].From, 10), r.Findings[0].Why
		}
		t.add(r.Log, strconv.FormatBool(r.OK), strconv.FormatUint(r.Records, 10), strconv.FormatUint(r.Signed, 10), strconv.Itoa(r.Checkpoints), first, why)
	}
	return t
}

// verifyExport needs the file and the key only.
func (a *app) verifyExport(path, key string) error {
	verifier, err := readVerifier(key)
	if err != nil {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("open export: %w", err)
	}
	defer f.Close()
	report, err := trail.VerifyBundle(f, verifier)
	if err != nil {
		return fmt.Errorf("%s does not hold: %w", path, err)
	}
	return a.print(bundleTable(report), report)
}

// readVerifier takes a verifier key, or the name of a file that holds one.
func readVerifier(key string) (note.Verifier, error) {
	v, err := note.NewVerifier(strings.TrimSpace(key))
	if err == nil {
		return v, nil
	}
	raw, readErr := os.ReadFile(key)
	if readErr != nil {
		return nil, usagef("--key: want NAME+HASH+BASE64 or a file with it")
	}
	if v, err = note.NewVerifier(strings.TrimSpace(string(raw))); err != nil {
		return nil, fmt.Errorf("read key %s: %w", key, err)
	}
	return v, nil
}

func bundleTable(r trail.BundleReport) table {
	t := table{columns: []string{"log", "records", "checkpoints", "first", "last", "signed_as"}}
	t.add(r.Log, strconv.FormatUint(r.Records, 10), strconv.Itoa(r.Checkpoints), r.First.Format("2006-01-02T15:04:05.000Z"), r.Last.Format("2006-01-02T15:04:05.000Z"), r.Origin)
	return t
}

func (a *app) auditKeyCommand() *cobra.Command {
	return &cobra.Command{
		Use: "key", Short: "Print the public key that verifies exports; keep it where nobody can exchange it", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			var k wire.AuditKey
			if err := cl.do(cmd.Context(), call{method: http.MethodGet, path: "/audit/key"}, &k); err != nil {
				return err
			}
			if a.output == "" {
				return write(a.streams.Out, []byte(k.Key+"\n"))
			}
			t := table{columns: []string{"key"}}
			t.add(k.Key)
			return a.print(t, k)
		},
	}
}

func (a *app) auditExportCommand() *cobra.Command {
	var tenant, log, file string
	c := &cobra.Command{
		Use: "export --log LOG -f FILE", Short: "Write a whole log with its signed checkpoints, to be verified without a node", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := required(cmd, "file"); err != nil {
				return err
			}
			if tenant != "" && log != "" {
				return usagef("--log and --tenant: want one of them")
			}
			cl, err := a.client()
			if err != nil {
				return err
			}
			return a.exportAudit(cmd.Context(), cl, call{method: http.MethodGet, path: "/audit/export", query: query("log", log, "tenant", tenant)}, file)
		},
	}
	f := c.Flags()
	f.StringVar(&log, "log", "", "platform, or tenant/NAME (default: platform)")
	f.StringVar(&tenant, "tenant", "", "this tenant's log; instead of --log")
	f.StringVarP(&file, "file", "f", "", "where to (required)")
	return c
}

// exportAudit gives the file its name only when it is whole, verified and on
// disk. That it verifies with the node's own key proves only that it arrived.
func (a *app) exportAudit(ctx context.Context, cl *client, r call, path string) error {
	var k wire.AuditKey
	if err := cl.do(ctx, call{method: http.MethodGet, path: "/audit/key"}, &k); err != nil {
		return err
	}
	key, err := note.NewVerifier(k.Key)
	if err != nil {
		return fmt.Errorf("read the node's key: %w", err)
	}
	f, err := durable.New(path)
	if err != nil {
		return fmt.Errorf("create export: %w", err)
	}
	defer f.Discard()
	r.stream = func(body io.Reader) error {
		if _, err := io.Copy(f, body); err != nil {
			return fmt.Errorf("save export: %w", err)
		}
		return nil
	}
	if err := cl.do(ctx, r, nil); err != nil {
		return err
	}
	if err := rewind(f.File); err != nil {
		return fmt.Errorf("write export: %w", err)
	}
	report, err := trail.VerifyBundle(f, key)
	if err != nil {
		return fmt.Errorf("the export does not hold: %w", err)
	}
	if err := f.Commit(); err != nil {
		return fmt.Errorf("write export: %w", err)
	}
	return a.print(bundleTable(report), report)
}

func (a *app) auditCoverageCommand() *cobra.Command {
	return &cobra.Command{
		Use: "coverage", Short: "Print which events meet which items of PCI DSS, ISO 27001 and NIST 800-53, and the tests that show it", Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			rows := trail.Coverage()
			t := table{columns: []string{"standard", "item", "asks_for", "met_by", "events", "tests"}}
			for _, r := range rows {
				t.add(r.Standard, r.Item, r.Asks, r.Met, strings.Join(r.Actions, " "), strings.Join(r.Tests, " "))
			}
			return a.print(t, rows)
		},
	}
}
