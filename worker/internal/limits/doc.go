// Package limits counts what a tenant uses and refuses what does not fit:
// requests, tokens and money per minute, day and month, and concurrency, at the
// levels tenant, project, environment and service account, all at once.
//
// It is the only writer of these counters, under one mutex, so it is exact: for
// every ceiling and at every moment, settled + reserved <= ceiling, and nothing
// that fits is refused. A request reserves its worst case before it is sent.
// What fits next to the settled use but not next to the open reservations of
// others waits, because they will give something back; what does not even fit
// next to the settled use is refused.
//
// Windows. The minute is any span of 60 seconds, kept in slots of 100 ms whose
// content leaves when the youngest of it is 60 s old; it follows elapsed
// (monotonic) time. Day and month are calendar windows in the tenant's time
// zone. Their calendar never goes back: a wall clock that jumps forward opens
// the next window early, and jumping back then neither reopens the old one nor
// resets the new one, which lasts until the clock has passed it. Use belongs to
// the window in which it was reserved, even when it is settled later.
//
// Settling cannot fail. More use than was reserved is booked in full and
// reported; keeping that from happening (cutting the stream) is the caller's
// part. Counters survive a restart by Snapshot, Restore and the replay of the
// journal's records by reservation id.
//
// Not here: waiting (package queue), prices, and what a provider reports.
package limits
