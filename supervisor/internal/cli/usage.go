package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/bulkhead-ai/bulkhead/supervisor/internal/billing"
	"github.com/spf13/cobra"
)

// usageNames are what a report can be split by.
func usageNames() []string {
	return []string{"tenant", "project", "env", "service_account", "key", "model", "day"}
}

// period are the flags of a span of days.
type period struct{ from, to, tenant string }

func (p *period) flags(c *cobra.Command) {
	c.Flags().StringVar(&p.from, "from", "", "first day, YYYY-MM-DD (default: since ever)")
	c.Flags().StringVar(&p.to, "to", "", "last day, included (default: until now)")
	c.Flags().StringVar(&p.tenant, "tenant", "", "only this tenant")
}

func (p *period) check() error {
	for flag, day := range map[string]string{"from": p.from, "to": p.to} {
		if _, err := time.Parse(time.DateOnly, day); day != "" && err != nil {
			return usagef("--%s %q: want a day as YYYY-MM-DD", flag, day)
		}
	}
	if p.from != "" && p.to != "" && p.to < p.from {
		return usagef("--to %s is before --from %s", p.to, p.from)
	}
	return nil
}

func (a *app) usageCommand() *cobra.Command {
	return group("usage", "What was used and what it costs", a.usageReportCommand(), a.usageExportCommand())
}

func (a *app) usageReportCommand() *cobra.Command {
	var p period
	var by []string
	c := &cobra.Command{
		Use: "report", Short: "Sum the ledger", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			for i, name := range by {
				if !slices.Contains(usageNames(), name) || slices.Contains(by[:i], name) {
					return usagef("--by %q: want each at most once of %s", name, strings.Join(usageNames(), ","))
				}
			}
			return a.usage(cmd, p, by)
		},
	}
	c.Flags().StringSliceVar(&by, "by", []string{"tenant"}, "split by any of "+strings.Join(usageNames(), ","))
	p.flags(c)
	return c
}

func (a *app) usageExportCommand() *cobra.Command {
	var p period
	c := &cobra.Command{
		Use: "export", Short: "Write the ledger split by every name, as CSV unless -o says else", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if a.output == "" {
				a.output = csvOut
			}
			return a.usage(cmd, p, usageNames())
		},
	}
	p.flags(c)
	return c
}

func (a *app) usage(cmd *cobra.Command, p period, by []string) error {
	if err := p.check(); err != nil {
		return err
	}
	cl, err := a.client()
	if err != nil {
		return err
	}
	var rows []json.RawMessage
	q := query("by", strings.Join(by, ","), "from", p.from, "to", p.to, "tenant", p.tenant)
	if err := cl.do(cmd.Context(), call{method: http.MethodGet, path: "/usage", query: q}, &rows); err != nil {
		return err
	}
	t, err := tableOf(rows)
	if err != nil {
		return err
	}
	if t.columns == nil {
		t.columns = (&billing.Row{By: by}).Columns()
	}
	return a.print(t, rows)
}

// tableOf makes a table of flat JSON objects, keeping the order of their
// members.
func tableOf(rows []json.RawMessage) (table, error) {
	var t table
	for _, raw := range rows {
		columns, cells, err := flatten(raw)
		if err != nil {
			return t, fmt.Errorf("read row: %w", err)
		}
		if t.columns == nil {
			t.columns = columns
		}
		if !slices.Equal(columns, t.columns) {
			return t, fmt.Errorf("read row: columns %v after %v", columns, t.columns)
		}
		t.add(cells...)
	}
	return t, nil
}

func flatten(raw []byte) (columns, cells []string, err error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	if _, err := d.Token(); err != nil {
		return nil, nil, err
	}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return nil, nil, err
		}
		value, err := d.Token()
		if err != nil {
			return nil, nil, err
		}
		if _, nested := value.(json.Delim); nested {
			return nil, nil, fmt.Errorf("%v is no plain value", name)
		}
		columns = append(columns, fmt.Sprint(name))
		cell := fmt.Sprint(value)
		if value == nil {
			cell = ""
		}
		cells = append(cells, cell)
	}
	return columns, cells, nil
}
