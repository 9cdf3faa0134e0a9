// Package egress is the supervisor's end of the broker socket: the only way
// out of a worker's sandbox.
//
// A worker names a provider, never an address. The broker dials host and port
// of that provider as the tenant's present policy has them, checks the literal
// address of every connection attempt after the name was resolved and right
// before connect, and passes the connected descriptor. The bytes then flow
// between worker and provider directly, TLS end to end.
//
// Guaranteed: no connection to an address of the deny table (private, loopback,
// link-local, metadata, translated and reserved ranges, in every notation and
// whatever the name server says), but for what the provider's allow_private or
// the operator's list admits; plain TCP over IPv4 or IPv6 only; no proxy, no
// redirect; bounds on open connections, running requests and the dial rate of
// each tenant. When a provider leaves the policy, or the worker ends, its
// connections are shut down at once, and when the worker ends, what the network
// had not taken by then is never sent.
//
// Not guaranteed: what a worker says over a connection it was given. A provider
// whose host serves others too (a CDN) is reachable as those others. A worker
// that hides that it closed a connection only uses up its own tenant's share.
package egress
