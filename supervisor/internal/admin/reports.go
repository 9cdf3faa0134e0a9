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
	By     string `query:"by" json:"by,omitempty" maxLength:"256" doc:"names to split by, comma-separated; default: one total"`
	From   string `query:"from" json:"from,omitempty" maxLength:"10" doc:"first day, YYYY-MM-DD in the tenant's time zone"`
	To     string `query:"to" json:"to,omitempty" maxLength:"10" doc:"last day, included"`
	Tenant string `query:"tenant" json:"tenant,omitempty" maxLength:"63" doc:"default: all tenants that the caller may see"`
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
	guarded(a, operation("usage-report", http.MethodGet, "/usage", "Sum the ledger by names"),
		func(ctx context.Context, in *usageInput) (matter, error) {
			m := a.ofRows(ctx, "usage-report", in.Tenant)
			m.object, m.after = "usage", in
			return m, nil
		}, a.usage)
	logs := operation("logs", http.MethodGet, "/logs", "A tenant's requests, newest first, one JSON object a line")
	logs.Responses = map[string]*huma.Response{"200": {
		Description: "one request a line",
		Content:     map[string]*huma.MediaType{"application/x-ndjson": {Schema: logLineSchema(a.huma)}},
	}}
	guarded(a, logs, a.aboutLogs, a.logs)
}

// ofRows is the matter of a list: the tenant that was asked for, else those of
// which the caller may see rows.
func (a *API) ofRows(ctx context.Context, action, tenant string) matter {
	if tenant != "" {
		return matter{tenants: []bulkhead.TenantID{bulkhead.TenantID(tenant)}}
	}
	tenants, _ := a.rules[action].Scope(principalOf(ctx))
	return matter{tenants: tenants}
}

func (a *API) usage(ctx context.Context, in *usageInput) (*usageOutput, error) {
	q := billing.Query{From: in.From, To: in.To, Tenant: bulkhead.TenantID(in.Tenant)}
	if tenants, all := a.rules["usage-report"].Scope(principalOf(ctx)); !all {
		q.Within = append([]bulkhead.TenantID{}, tenants...)
	}
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
