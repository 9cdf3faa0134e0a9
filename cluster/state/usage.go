package state

import (
	"math"
	"strings"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/worker/receipt"
)

// UsageRow sums the receipts that agree in the eight names. Amounts of different
// currencies are never added: they stand in different rows.
//
// Requests is the sum of the seven outcomes; a request counts once, where its
// final receipt is. Tokens and cost count for every receipt, so that attempts
// which a retry replaced are in the bill too.
type UsageRow struct {
	Tenant, Project, Env, Account, Key, Model string
	Day                                       string // YYYY-MM-DD in the tenant's time zone
	Currency                                  string // "" where nothing was priced

	Requests, Served, Failed, TimedOut, Cancelled int64
	RefusedLimit, RefusedPolicy, RefusedAuth      int64

	InputTokens, OutputTokens int64          // sums of the classes below
	Usage                     bulkhead.Usage // tokens by class

	Cost        bulkhead.Total
	Unpriced    int64          // receipts without a price; their cost is not in Cost
	Unknown     int64          // receipts of attempts whose charge is not known; their cost is not in Cost
	UnknownCost bulkhead.Total // the most that the unknown ones can cost
}

// key orders rows by their names. No name holds a NUL: receipts with control
// characters are refused.
func (r *UsageRow) key() string {
	return strings.Join([]string{r.Tenant, r.Project, r.Env, r.Account, r.Key, r.Model, r.Day, r.Currency}, "\x00")
}

func rowOf(r *receipt.Receipt) *UsageRow {
	return &UsageRow{
		Tenant: string(r.Tenant), Project: r.Project, Env: r.Env, Account: r.Account,
		Key: string(r.Key), Model: r.Model, Day: r.Day, Currency: r.Currency,
	}
}

// add counts one receipt. Counts saturate: an absurd sum must not wrap into a
// believable one.
func (r *UsageRow) add(c *receipt.Receipt) {
	if c.Final {
		r.count(c.Outcome)
	}
	sum(&r.Usage.Input, c.Usage.Input)
	sum(&r.Usage.CacheRead, c.Usage.CacheRead)
	sum(&r.Usage.CacheWrite, c.Usage.CacheWrite)
	sum(&r.Usage.Output, c.Usage.Output)
	sum(&r.Usage.Reasoning, c.Usage.Reasoning)
	sum(&r.InputTokens, c.Usage.InputTokens())
	sum(&r.OutputTokens, c.Usage.OutputTokens())
	r.Cost = r.Cost.Add(c.Cost)
	if c.Unpriced {
		sum(&r.Unpriced, 1)
	}
	if c.Unknown {
		sum(&r.Unknown, 1)
		r.UnknownCost = r.UnknownCost.Add(c.UpperBound)
	}
}

func (r *UsageRow) count(o bulkhead.Outcome) {
	sum(&r.Requests, 1)
	switch o {
	case bulkhead.Served:
		sum(&r.Served, 1)
	case bulkhead.Failed:
		sum(&r.Failed, 1)
	case bulkhead.TimedOut:
		sum(&r.TimedOut, 1)
	case bulkhead.Cancelled:
		sum(&r.Cancelled, 1)
	case bulkhead.RefusedLimit:
		sum(&r.RefusedLimit, 1)
	case bulkhead.RefusedPolicy:
		sum(&r.RefusedPolicy, 1)
	case bulkhead.RefusedAuth:
		sum(&r.RefusedAuth, 1)
	}
}

// sum adds n >= 0 to *to >= 0.
func sum(to *int64, n int64) {
	if *to > math.MaxInt64-n {
		n = math.MaxInt64 - *to
	}
	*to += n
}
