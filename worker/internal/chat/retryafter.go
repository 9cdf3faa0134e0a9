package chat

import (
	"net/http"
	"strconv"
	"time"
)

// maxRetryAfter bounds what a client is told to wait: some SDKs sleep as long as
// they are told, and cannot be woken.
const maxRetryAfter = time.Minute

// retryAfter reads how long a provider asks to wait, 0 when it does not say.
func retryAfter(h http.Header, now time.Time) time.Duration {
	wait := time.Duration(0)
	text := h.Get("Retry-After")
	if ms, err := strconv.ParseFloat(h.Get("Retry-After-Ms"), 64); err == nil && ms > 0 {
		wait = time.Duration(min(ms, float64(maxRetryAfter.Milliseconds()))) * time.Millisecond
	} else if s, err := strconv.ParseFloat(text, 64); err == nil && s > 0 {
		wait = time.Duration(min(s, maxRetryAfter.Seconds()) * float64(time.Second))
	} else if at, err := http.ParseTime(text); err == nil {
		wait = at.Sub(now)
	}
	return min(max(wait, 0), maxRetryAfter)
}
