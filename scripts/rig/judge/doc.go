// Package judge decides whether a campaign's observations are those of a system
// that keeps its promises: that what a client holds is on the bill exactly once,
// that nobody calls the upstream for a tenant that another node serves by then,
// that a limit was never passed, and that keys live and die as if there were one
// node only (linearizability).
//
// It knows nothing of how the observations were made, and every check can fail:
// its tests plant each violation. Times are microseconds of one clock.
package judge
