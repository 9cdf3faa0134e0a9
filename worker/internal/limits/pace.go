package limits

import "time"

// pace shapes requests to a steady rate with a bounded burst (the generic cell
// rate algorithm): at any moment at most burst requests pass beyond the steady
// one. It works on the limiter's clock.
type pace struct {
	due  int64 // when the requests admitted so far have all been earned
	base int64 // when due was last started from the clock; a refund needs the same base
}

// every is the time that earns one request, rounded up.
func every(perMinute int64) int64 {
	return max(1, (minuteSpan+perMinute-1)/perMinute)
}

// allowance is how far due may be ahead of the clock, saturating.
func allowance(c *ceilings) int64 {
	step := every(c.perMinute)
	if c.burst > (1<<62)/step {
		return 1 << 62
	}
	return c.burst * step
}

// freeIn is how long until one more request may pass; 0 is now.
func (p *pace) freeIn(clock int64, c *ceilings) time.Duration {
	if !c.paced() {
		return 0
	}
	return time.Duration(max(0, p.due-allowance(c)-clock))
}

// take admits a request and returns the base for a refund.
func (p *pace) take(clock int64, c *ceilings) int64 {
	if !c.paced() {
		return -1
	}
	if p.due <= clock {
		p.due, p.base = clock, clock
	}
	p.due += every(c.perMinute)
	return p.base
}

// refund takes a request back. After a pause it does nothing: the clock has
// earned the request back already.
func (p *pace) refund(base int64, c *ceilings) {
	if c.paced() && base == p.base && p.due > base {
		p.due = max(base, p.due-every(c.perMinute))
	}
}

// left is how many requests may pass at once.
func (p *pace) left(clock int64, c *ceilings) int64 {
	ahead := max(0, p.due-clock)
	if ahead > allowance(c) {
		return 0
	}
	return (allowance(c)-ahead)/every(c.perMinute) + 1
}
