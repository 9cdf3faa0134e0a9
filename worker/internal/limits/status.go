package limits

import "time"

// Rate is what the x-ratelimit-* headers say: the tightest minute windows of
// all levels. A Limit of -1 means that there is none.
type Rate struct {
	LimitRequests, RemainingRequests int64
	ResetRequests                    time.Duration // until the window is empty again
	LimitTokens, RemainingTokens     int64
	ResetTokens                      time.Duration
}

// Status tells the rate of a key's scopes. Open reservations count as used.
func (l *Limiter) Status(project, env, account string, now time.Time) Rate {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.advance(now)
	r := Rate{LimitRequests: -1, LimitTokens: -1}
	for _, lv := range l.at(project, env, account) {
		reset := lv.minute.emptyIn(l.clock)
		if c := &lv.lim; c.perMinute != none {
			left := max(0, c.perMinute-lv.minute.requests)
			if c.paced() {
				left = min(left, lv.pace.left(l.clock, c))
			}
			if r.LimitRequests < 0 || left < r.RemainingRequests {
				r.LimitRequests, r.RemainingRequests, r.ResetRequests = c.perMinute, left, reset
			}
		}
		if limit := lv.lim.tokensPerMinute; limit != none {
			left := max(0, lv.minute.tokens.used.plus(lv.minute.tokens.held).room(limit))
			if r.LimitTokens < 0 || left < r.RemainingTokens {
				r.LimitTokens, r.RemainingTokens, r.ResetTokens = limit, left, reset
			}
		}
	}
	return r
}
