package billing

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/state"
)

// Query says what a report covers and by which names it is split.
type Query struct {
	By     []string          // any of Names(), each once; empty = one total
	From   string            // first day, YYYY-MM-DD in each tenant's time zone; empty = since ever
	To     string            // last day, included; empty = until now
	Tenant bulkhead.TenantID // only this one; empty = all
	// Within leaves out every other tenant, and the rows of none; nil = all. An
	// empty list leaves out everything.
	Within []bulkhead.TenantID
}

// names are what a report can be split by, and how a usage row answers.
var names = []struct {
	name string
	of   func(*state.UsageRow) string
}{
	{"tenant", func(r *state.UsageRow) string { return r.Tenant }},
	{"project", func(r *state.UsageRow) string { return r.Project }},
	{"env", func(r *state.UsageRow) string { return r.Env }},
	{"service_account", func(r *state.UsageRow) string { return r.Account }},
	{"key", func(r *state.UsageRow) string { return r.Key }},
	{"model", func(r *state.UsageRow) string { return r.Model }},
	{"day", func(r *state.UsageRow) string { return r.Day }},
}

// Names lists the names that a report can be split by.
func Names() []string {
	out := make([]string, len(names))
	for i, n := range names {
		out[i] = n.name
	}
	return out
}

// Report folds the ledger's rows, in the order of the chosen names' values. A
// row without a price, where its neighbours have one, counts into their
// currency; amounts of several currencies stand in several rows. Errors are
// *bulkhead.Error of kind InvalidRequest.
func (l *Ledger) Report(q Query) ([]Row, error) {
	by, err := q.check()
	if err != nil {
		return nil, err
	}
	f := fold{by: by, groups: map[string]*group{}}
	each := func(r state.UsageRow) bool {
		within := q.Within == nil || slices.Contains(q.Within, bulkhead.TenantID(r.Tenant))
		if within && (q.From == "" || r.Day >= q.From) && (q.To == "" || r.Day <= q.To) {
			f.add(&r)
		}
		return true
	}
	if view := l.cluster.State().View(); q.Tenant == "" {
		view.Usage(each)
	} else {
		view.UsageOf(q.Tenant, each)
	}
	return f.rows(q.By), nil
}

func (q Query) check() ([]func(*state.UsageRow) string, error) {
	var by []func(*state.UsageRow) string
	for i, want := range q.By {
		at := slices.IndexFunc(names, func(n struct {
			name string
			of   func(*state.UsageRow) string
		}) bool {
			return n.name == want
		})
		if at < 0 || slices.Contains(q.By[:i], want) {
			return nil, invalid("by", fmt.Sprintf("%q: want each at most once of %s", want, strings.Join(Names(), ", ")))
		}
		by = append(by, names[at].of)
	}
	for field, day := range map[string]string{"from": q.From, "to": q.To} {
		if _, err := time.Parse(time.DateOnly, day); day != "" && err != nil {
			return nil, invalid(field, fmt.Sprintf("%q: want a day as YYYY-MM-DD", day))
		}
	}
	if q.Tenant != "" && !bulkhead.ValidName(string(q.Tenant)) {
		return nil, invalid("tenant", "is not a name")
	}
	return by, nil
}

func invalid(param, text string) *bulkhead.Error {
	e := bulkhead.E(bulkhead.InvalidRequest, "invalid_query", param+": "+text)
	e.Param = param
	return e
}

// fold sums usage rows by group and currency.
type fold struct {
	by     []func(*state.UsageRow) string
	groups map[string]*group
}

type group struct {
	values []string
	sums   map[string]*Row // by currency
}

func (f *fold) add(r *state.UsageRow) {
	values := make([]string, len(f.by))
	for i, of := range f.by {
		values[i] = of(r)
	}
	key := strings.Join(values, "\x00") // no name holds a NUL
	g := f.groups[key]
	if g == nil {
		g = &group{values: values, sums: map[string]*Row{}}
		f.groups[key] = g
	}
	if g.sums[r.Currency] == nil {
		g.sums[r.Currency] = &Row{Values: values, Currency: r.Currency}
	}
	g.sums[r.Currency].addUsage(r)
}

func (f *fold) rows(by []string) []Row {
	out := make([]Row, 0, len(f.groups))
	for _, g := range f.groups {
		g.settleUnpriced()
		for _, sum := range g.sums {
			sum.By = by
			out = append(out, *sum)
		}
	}
	slices.SortFunc(out, func(a, b Row) int {
		return cmp.Or(slices.Compare(a.Values, b.Values), cmp.Compare(a.Currency, b.Currency))
	})
	return out
}

// settleUnpriced adds the rows that have no currency, because nothing in them
// was priced, to the one currency that there is.
func (g *group) settleUnpriced() {
	none := g.sums[""]
	if none == nil || len(g.sums) != 2 {
		return
	}
	delete(g.sums, "")
	for _, sum := range g.sums {
		sum.add(none)
	}
}
