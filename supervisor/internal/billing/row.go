package billing

import (
	"bytes"
	"encoding/json"
	"strconv"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/state"
)

// Row is one line of a report.
type Row struct {
	By     []string // the chosen names
	Values []string // their values, in the same order

	Requests, Served, Failed, TimedOut, Cancelled int64
	RefusedLimit, RefusedPolicy, RefusedAuth      int64
	InputTokens, OutputTokens                     int64
	Cost                                          bulkhead.Total
	Currency                                      string // "" where nothing was priced
	Unpriced                                      int64  // receipts without a price: their cost is not in Cost
	Unknown                                       int64  // receipts whose charge is not known: their cost is not in Cost
	UnknownCost                                   bulkhead.Total
}

// figures are the columns after the chosen names, in their order.
var figures = []struct {
	name string
	of   func(*Row) any // int64, bulkhead.Total or string
}{
	{"requests", func(r *Row) any { return r.Requests }},
	{"served", func(r *Row) any { return r.Served }},
	{"failed", func(r *Row) any { return r.Failed }},
	{"timed_out", func(r *Row) any { return r.TimedOut }},
	{"cancelled", func(r *Row) any { return r.Cancelled }},
	{"refused_limit", func(r *Row) any { return r.RefusedLimit }},
	{"refused_policy", func(r *Row) any { return r.RefusedPolicy }},
	{"refused_auth", func(r *Row) any { return r.RefusedAuth }},
	{"input_tokens", func(r *Row) any { return r.InputTokens }},
	{"output_tokens", func(r *Row) any { return r.OutputTokens }},
	{"cost", func(r *Row) any { return r.Cost }},
	{"currency", func(r *Row) any { return r.Currency }},
	{"unpriced", func(r *Row) any { return r.Unpriced }},
	{"unknown", func(r *Row) any { return r.Unknown }},
	{"unknown_cost", func(r *Row) any { return r.UnknownCost }},
}

// Columns are the names of a row's cells: the chosen names, then the figures.
func (r *Row) Columns() []string {
	out := append([]string(nil), r.By...)
	for _, f := range figures {
		out = append(out, f.name)
	}
	return out
}

// Cells are the row's values as text, in the order of Columns.
func (r *Row) Cells() []string {
	out := append([]string(nil), r.Values...)
	for _, f := range figures {
		switch v := f.of(r).(type) {
		case int64:
			out = append(out, strconv.FormatInt(v, 10))
		case bulkhead.Total:
			out = append(out, v.String())
		case string:
			out = append(out, v)
		}
	}
	return out
}

// MarshalJSON writes one object with the members in the order of Columns;
// amounts are decimal strings.
func (r Row) MarshalJSON() ([]byte, error) {
	b := bytes.NewBufferString("{")
	member := func(name string, value any) error {
		if b.Len() > 1 {
			b.WriteByte(',')
		}
		n, err := json.Marshal(name)
		if err != nil {
			return err
		}
		v, err := json.Marshal(value)
		if err != nil {
			return err
		}
		b.Write(n)
		b.WriteByte(':')
		b.Write(v)
		return nil
	}
	for i, name := range r.By {
		if err := member(name, r.Values[i]); err != nil {
			return nil, err
		}
	}
	for _, f := range figures {
		if err := member(f.name, f.of(&r)); err != nil {
			return nil, err
		}
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

func (r *Row) addUsage(u *state.UsageRow) {
	r.add(&Row{
		Requests: u.Requests, Served: u.Served, Failed: u.Failed, TimedOut: u.TimedOut, Cancelled: u.Cancelled,
		RefusedLimit: u.RefusedLimit, RefusedPolicy: u.RefusedPolicy, RefusedAuth: u.RefusedAuth,
		InputTokens: u.InputTokens, OutputTokens: u.OutputTokens,
		Cost: u.Cost, Unpriced: u.Unpriced, Unknown: u.Unknown, UnknownCost: u.UnknownCost,
	})
}

func (r *Row) add(s *Row) {
	r.Requests += s.Requests
	r.Served += s.Served
	r.Failed += s.Failed
	r.TimedOut += s.TimedOut
	r.Cancelled += s.Cancelled
	r.RefusedLimit += s.RefusedLimit
	r.RefusedPolicy += s.RefusedPolicy
	r.RefusedAuth += s.RefusedAuth
	r.InputTokens += s.InputTokens
	r.OutputTokens += s.OutputTokens
	r.Cost = r.Cost.Plus(s.Cost)
	r.Unpriced += s.Unpriced
	r.Unknown += s.Unknown
	r.UnknownCost = r.UnknownCost.Plus(s.UnknownCost)
}
