package limits

import (
	"time"

	"github.com/bulkhead-ai/bulkhead"
)

// windowName names a ceiling.
type windowName uint8

const (
	requestsPerMinute windowName = iota
	burst
	tokensPerMinute
	concurrency
	dailyRequests
	dailyTokens
	dailyCost
	monthlyRequests
	monthlyTokens
	monthlyCost
)

// words of a ceiling: for a sentence, and the error code.
func (w windowName) words() (text, code string) {
	switch w {
	case requestsPerMinute:
		return "requests per minute", "requests_per_minute_exceeded"
	case burst:
		return "requests at once", "burst_exceeded"
	case tokensPerMinute:
		return "tokens per minute", "tokens_per_minute_exceeded"
	case concurrency:
		return "concurrent requests", "concurrency_exceeded"
	case dailyRequests:
		return "requests per day", "daily_requests_exceeded"
	case dailyTokens:
		return "tokens per day", "daily_tokens_exceeded"
	case dailyCost:
		return "cost per day", "daily_cost_exceeded"
	case monthlyRequests:
		return "requests per month", "monthly_requests_exceeded"
	case monthlyTokens:
		return "tokens per month", "monthly_tokens_exceeded"
	case monthlyCost:
		return "cost per month", "monthly_cost_exceeded"
	}
	panic("internal error: unknown window")
}

func (l Level) word() string {
	switch l {
	case Tenant:
		return "tenant"
	case Project:
		return "project"
	case Environment:
		return "environment"
	}
	return "service account"
}

// word names a scope as far as a client needs to know it.
func (s Scope) word() string {
	if s.Level == Policy {
		return "policy " + s.Name
	}
	return s.Level.word()
}

// refusal is the ceiling that refuses an ask. Of several, the one that lasts
// longest is told, so that a client does not come back for nothing.
type refusal struct {
	set    bool
	scope  Scope
	window windowName
	retry  time.Duration // 0: waiting a minute does not help
}

func (f *fit) refuse(lv *level, w windowName, retry time.Duration) {
	r := refusal{true, lv.scope, w, retry}
	o := &f.refusal
	if !o.set || o.retry != 0 && (r.retry == 0 || r.retry > o.retry) {
		*o = r
	}
}

func (r refusal) error() *bulkhead.Error {
	text, code := r.window.words()
	if r.retry == 0 {
		return bulkhead.E(bulkhead.QuotaExhausted, code,
			"The request does not fit into the "+r.scope.word()+"'s limit of "+text+".")
	}
	e := bulkhead.E(bulkhead.RateLimited, code, "The "+r.scope.word()+"'s limit of "+text+" is reached.")
	e.RetryAfter = r.retry
	return e
}

func errUnpriced() *bulkhead.Error {
	return bulkhead.E(bulkhead.PermissionDenied, "model_unpriced",
		"The model has no price, and a limit of cost is in force.")
}
