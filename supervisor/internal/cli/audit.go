package cli

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/bulkhead-ai/bulkhead/cluster/audit"
	"github.com/spf13/cobra"
)

// auditFilter are the flags of bulkhead audit.
type auditFilter struct {
	tenant, log, from, to                   string
	action, actor, object, result, withinID string
	since                                   time.Duration
	limit                                   int
}

func (a *app) auditCommand() *cobra.Command {
	var f auditFilter
	c := &cobra.Command{
		Use: "audit", Short: "Who did what, newest first; -o json prints one object a line", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			q, err := f.query()
			if err != nil {
				return err
			}
			cl, err := a.client()
			if err != nil {
				return err
			}
			return cl.do(cmd.Context(), call{method: http.MethodGet, path: "/audit", query: q, stream: a.printAudit}, nil)
		},
	}
	flags := c.Flags()
	flags.StringVar(&f.tenant, "tenant", "", "this tenant's log (default: the platform's)")
	flags.StringVar(&f.log, "log", "", "platform, or tenant/NAME; instead of --tenant")
	flags.StringVar(&f.from, "from", "", "not before: YYYY-MM-DD, or a time as 2006-01-02T15:04:05Z")
	flags.StringVar(&f.to, "to", "", "before; a day is included")
	flags.DurationVar(&f.since, "since", 0, "only the last, such as 1h; instead of --from")
	flags.StringVar(&f.action, "action", "", "only this action, such as create-key")
	flags.StringVar(&f.actor, "actor", "", "only this subject, e-mail address or client address")
	flags.StringVar(&f.object, "object", "", `only this object, such as "Tenant acme"`)
	flags.StringVar(&f.result, "result", "", "only pending, done, denied, failed or unknown")
	flags.StringVar(&f.withinID, "request", "", "only this request")
	flags.IntVar(&f.limit, "limit", 1000, "at most so many records")
	c.AddCommand(a.auditVerifyCommand(), a.auditExportCommand(), a.auditKeyCommand(), a.auditCoverageCommand())
	return c
}

func (f *auditFilter) query() (map[string][]string, error) {
	if f.limit < 1 || f.limit > 1_000_000 {
		return nil, usagef("--limit: want 1 to 1000000")
	}
	if f.tenant != "" && f.log != "" {
		return nil, usagef("--log and --tenant: want one of them")
	}
	results := []audit.Result{"", audit.Pending, audit.Done, audit.Denied, audit.Failed, audit.Unknown}
	if !slices.Contains(results, audit.Result(f.result)) {
		return nil, usagef("--result %q: want pending, done, denied, failed or unknown", f.result)
	}
	q := query("tenant", f.tenant, "log", f.log, "action", f.action, "actor", f.actor, "object", f.object, "result", f.result, "request", f.withinID)
	q.Set("limit", strconv.Itoa(f.limit))
	if f.since > 0 && f.from == "" {
		q.Set("from", time.Now().Add(-f.since).UTC().Format(time.RFC3339))
	}
	for flag, value := range map[string]string{"from": f.from, "to": f.to} {
		if value == "" {
			continue
		}
		at, err := parseMoment(value, flag == "to")
		if err != nil {
			return nil, usagef("--%s %q: want a day as YYYY-MM-DD, or a time as 2006-01-02T15:04:05Z", flag, value)
		}
		q.Set(flag, at.UTC().Format(time.RFC3339Nano))
	}
	return q, nil
}

// parseMoment reads a time, or a day in UTC: its beginning, or its end.
func parseMoment(s string, end bool) (time.Time, error) {
	day, err := time.Parse(time.DateOnly, s)
	if err != nil {
		return time.Parse(time.RFC3339Nano, s)
	}
	if end {
		day = day.AddDate(0, 0, 1)
	}
	return day, nil
}

func (a *app) printAudit(r io.Reader) error {
	out, err := a.output.or(tableOut, tableOut, jsonOut, yamlOut, csvOut)
	if err != nil {
		return err
	}
	in := bufio.NewScanner(r)
	in.Buffer(make([]byte, 64<<10), maxLine)
	var rows []json.RawMessage
	t := table{columns: []string{"at", "seq", "phase", "action", "actor", "role", "address", "object", "result", "reason", "request"}}
	for in.Scan() {
		if out == jsonOut {
			if err := write(a.streams.Out, append(slices.Clone(in.Bytes()), '\n')); err != nil {
				return err
			}
			continue
		}
		cells, err := auditCells(in.Bytes())
		if err != nil {
			return err
		}
		t.add(cells...)
		rows = append(rows, slices.Clone(in.Bytes()))
	}
	if err := in.Err(); err != nil {
		return fmt.Errorf("the audit trail was cut off: %w", err)
	}
	if out == jsonOut {
		return nil
	}
	return a.print(t, rows)
}

// auditCells shows a record to people. A newer node's record may have more
// members than this program knows.
func auditCells(line []byte) ([]string, error) {
	var r audit.Record
	if err := json.Unmarshal(line, &r); err != nil {
		return nil, fmt.Errorf("read record: %w", err)
	}
	result := string(r.Result)
	if r.Code != "" {
		result += " (" + r.Code + ")"
	}
	if r.Count > 1 {
		result += " x" + strconv.FormatInt(r.Count, 10)
	}
	actor := firstOf(r.Actor.Name, r.Actor.Subject, strings.ToLower(r.Actor.Method))
	return []string{
		time.UnixMilli(r.At).UTC().Format(time.RFC3339Nano), strconv.FormatUint(r.Seq, 10), string(r.Phase), r.Action,
		actor, r.Actor.Role, r.Actor.Address, r.Object, result, r.Reason, r.Request,
	}, nil
}
