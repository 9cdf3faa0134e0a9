// Package routes is the table that authenticates and routes a request with one
// look-up: the SHA-256 of an API key leads to the key's entry, and that to its
// tenant.
//
// Lookup takes no lock and allocates nothing; at a million keys it costs little
// more than the cache misses. It compares all 32 bytes of the hash. Revoked and
// expired keys stay findable: the gateway says "revoked" and not "unknown", and
// counts the attempt.
//
// The table mirrors the replicated state. Whoever applies a command calls Sync
// before the command is acknowledged; from then on no Lookup answers what the
// command ended. A request that looked its key up before goes on: the worker
// decides again with the policy of Rev.
package routes
