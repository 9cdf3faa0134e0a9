// Package tenants runs the workers of a node: one process per tenant, started
// by the tenant's first request, ended when nobody asks any more, restarted
// after a crash, and told of every change of its policy.
//
// Guaranteed: at most one process of a tenant at a time; a process serves only
// after Raft has committed an epoch for its key; a crash, a start failure or a
// hostile message ends that one process and concerns no other tenant; whatever a
// worker sends is bounded in size and checked against what it may send at that
// moment; a policy that is not applied in time ends the worker, so WaitPolicy
// always comes back; after Close no process and no goroutine is left; no process
// starts without the tenant's key share, and none of a tenant whose data is being
// destroyed.
//
// Not guaranteed: that a worker's log lines are true. That receipts of a node
// that never comes back are booked. That the sandbox holds: the spawner and the
// worker build it.
package tenants
