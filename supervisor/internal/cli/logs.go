package cli

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"
)

// maxLine bounds one line of a log in bytes.
const maxLine = 1 << 20

func (a *app) logsCommand() *cobra.Command {
	var tenant, request, project, env, key, model string
	var since time.Duration
	var limit int
	c := &cobra.Command{
		Use: "logs --tenant TENANT", Short: "Print a tenant's requests, newest first; -o json prints one object a line", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := required(cmd, "tenant"); err != nil {
				return err
			}
			if limit < 1 || limit > 1_000_000 {
				return usagef("--limit: want 1 to 1000000")
			}
			q := query("tenant", tenant, "request", request, "project", project, "env", env, "key", key, "model", model)
			q.Set("limit", strconv.Itoa(limit))
			if since > 0 {
				q.Set("from", time.Now().Add(-since).UTC().Format(time.RFC3339))
			}
			cl, err := a.client()
			if err != nil {
				return err
			}
			return cl.do(cmd.Context(), call{method: http.MethodGet, path: "/logs", query: q, stream: a.printLogs}, nil)
		},
	}
	f := c.Flags()
	f.StringVar(&tenant, "tenant", "", "whose log (required)")
	f.StringVar(&request, "request", "", "only this request")
	f.StringVar(&project, "project", "", "only this project")
	f.StringVar(&env, "env", "", "only this environment")
	f.StringVar(&key, "key", "", "only this key id")
	f.StringVar(&model, "model", "", "only this model")
	f.DurationVar(&since, "since", 0, "only the last, such as 1h")
	f.IntVar(&limit, "limit", 1000, "at most so many records")
	return c
}

func (a *app) printLogs(r io.Reader) error {
	out, err := a.output.or(tableOut, tableOut, jsonOut, yamlOut, csvOut)
	if err != nil {
		return err
	}
	in := bufio.NewScanner(r)
	in.Buffer(make([]byte, 64<<10), maxLine)
	var rows []json.RawMessage
	for in.Scan() {
		if out == jsonOut {
			if err := write(a.streams.Out, append(slices.Clone(in.Bytes()), '\n')); err != nil {
				return err
			}
			continue
		}
		rows = append(rows, slices.Clone(in.Bytes()))
	}
	if err := in.Err(); err != nil {
		return fmt.Errorf("the log was cut off: %w", err)
	}
	if out == jsonOut {
		return nil
	}
	t, err := tableOf(rows)
	if err != nil {
		return err
	}
	if out == tableOut {
		t = t.pick("started_at", "request_id", "project", "env", "model", "provider", "status", "attempts", "input_tokens", "output_tokens", "cost", "latency_ms")
	}
	return a.print(t, rows)
}

// pick keeps some columns: a terminal is not as wide as a log.
func (t *table) pick(columns ...string) table {
	p := table{columns: columns}
	for _, row := range t.rows {
		cells := make([]string, len(columns))
		for i, name := range columns {
			if at := slices.Index(t.columns, name); at >= 0 {
				cells[i] = row[at]
			}
		}
		p.add(cells...)
	}
	return p
}
