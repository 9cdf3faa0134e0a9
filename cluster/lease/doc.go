// Package lease says which nodes may serve: every node holds a lease of a few
// seconds that the cluster's leader renews, and a node without one stops its
// workers before anyone else may start them.
//
// Guaranteed, as long as clocks run at the right rate to within a few percent
// (what they show does not matter): when the leader's Table calls a node gone,
// the node's Holder has given up, or its workers, who read the same deadline from
// the Page, have. It holds whatever is stopped, delayed, lost or repeated, and
// across changes of the leader, because
//
//   - the node counts from before it sent the request, the leader from after it
//     received it, and a Margin longer (TTL, Margin);
//   - a node whose lease ran out kills its workers before it shows a new
//     deadline, so no worker sees the lease come back that it lost;
//   - a new leader knows nothing and gives every node a full term (Reset);
//   - a leader grants only for a short while after a majority confirmed that it
//     still is the leader (Confirm), so one that slept through its successor's
//     election grants nothing.
//
// Not guaranteed: that a process is not stopped between its look at the deadline
// and its next step. What an old worker does then is fenced by its epoch where
// journals are kept; the lease keeps such moments rare and short.
//
// All times are CLOCK_BOOTTIME: it goes on in suspend, and nobody sets it.
package lease

import "time"

const (
	// RenewEvery is how often a node asks for renewal.
	RenewEvery = 500 * time.Millisecond
	// TTL is how long a grant is good for, on the node's clock, from before it
	// was asked for.
	TTL = 3 * time.Second
	// Margin is how much longer the leader waits, on its clock, after it heard
	// the request. It covers the error of both clocks and ConfirmFor.
	Margin = 650 * time.Millisecond
	// ConfirmFor is how long a leader may grant after a majority confirmed it.
	ConfirmFor = 500 * time.Millisecond

	renewTimeout = 500 * time.Millisecond // a leader that does not answer is asked again
	retryEvery   = 100 * time.Millisecond // after a refusal or an error: the next leader may be there
	lookEvery    = 250 * time.Millisecond // timers stand still in suspend, so no sleep to the deadline is longer
)
