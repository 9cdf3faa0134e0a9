package tenants

import "time"

// The restart policy.
const (
	minBackoff   = 100 * time.Millisecond
	maxBackoff   = 30 * time.Second
	healthyAfter = time.Minute // a run this long wipes the slate
)

// restarts decides how long a tenant pauses after a failure. The pause is the
// least distance between two starts, and doubles with every run that was
// shorter than it: a worker that crashes in a loop is held down, one that is
// killed now and then is back at once. It is pure but for its counter.
type restarts struct {
	failures int
}

// crashed answers how long after its start a process that served for ran may be
// followed by the next; 0 for the first crash after a healthy run.
func (r *restarts) crashed(ran time.Duration) time.Duration {
	switch {
	case ran >= healthyAfter:
		r.failures = 0
	case r.failures > 0 && ran >= backoff(r.failures):
		r.failures--
	}
	r.failures++
	return backoff(r.failures - 1)
}

// startFailed answers the pause after a start that never became ready.
func (r *restarts) startFailed() time.Duration {
	r.failures++
	return backoff(r.failures)
}

// ended forgets failures after a run that ended as asked.
func (r *restarts) ended() { r.failures = 0 }

// backoff is 0 for no failures, then minBackoff, doubling up to maxBackoff.
func backoff(failures int) time.Duration {
	if failures <= 0 {
		return 0
	}
	if failures > 9 {
		return maxBackoff
	}
	return min(minBackoff<<(failures-1), maxBackoff)
}
