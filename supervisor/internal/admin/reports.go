package admin

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/billing"
	"github.com/danielgtaylor/huma/v2"
)

type usageInput struct {
	By     string `query:"by" doc:"names to split by, comma-separated; default: one total"`
	From   string `query:"from" doc:"first day, YYYY-MM-DD in the tenant's time zone"`
	To     string `query:"to" doc:"last day, included"`
	Tenant string `query:"tenant" doc:"default: all tenants"`
}

type usageOutput struct{ Body []usageRow }

// usageRow is a billing.Row as the bill writes it: the chosen names, then the
// figures.
type usageRow struct{ billing.Row }

// MarshalJSON implements json.Marshaler.
func (r usageRow) MarshalJSON() ([]byte, error) { return json.Marshal(r.Row) }

// Schema implements huma.SchemaProvider: the columns, by the row's own words.
func (usageRow) Schema(huma.Registry) *huma.Schema {
	s := &huma.Schema{Type: huma.TypeObject, Description: "the chosen names, then the figures; amounts are decimal strings", Properties: map[string]*huma.Schema{}}
	sample := billing.Row{By: billing.Names(), Values: make([]string, len(billing.Names()))}
	for i, name := range sample.Columns() {
		t := huma.TypeInteger
		if cell := sample.Cells()[i]; cell == "" || strings.Contains(cell, ".") {
			t = huma.TypeString
		}
		s.Properties[name] = &huma.Schema{Type: t}
	}
	return s
}

func (a *API) reportRoutes() {
	huma.Register(a.huma, operation("usage-report", http.MethodGet, "/usage", "Sum the ledger by names"), a.usage)
	logs := operation("logs", http.MethodGet, "/logs", "A tenant's requests, newest first, one JSON object a line")
	logs.Responses = map[string]*huma.Response{"200": {
		Description: "one request a line",
		Content:     map[string]*huma.MediaType{"application/x-ndjson": {Schema: logLineSchema(a.huma)}},
	}}
	huma.Register(a.huma, logs, a.logs)
}

func (a *API) usage(_ context.Context, in *usageInput) (*usageOutput, error) {
	q := billing.Query{From: in.From, To: in.To, Tenant: bulkhead.TenantID(in.Tenant)}
	if in.By != "" {
		q.By = strings.Split(in.By, ",")
	}
	rows, err := a.cfg.Usage.Report(q)
	if err != nil {
		return nil, a.fail("usage report", err)
	}
	out := &usageOutput{Body: make([]usageRow, 0, len(rows))}
	for _, r := range rows {
		out.Body = append(out.Body, usageRow{r})
	}
	return out, nil
}
