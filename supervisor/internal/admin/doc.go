// Package admin is the admin API: everything an operator can ask of a node,
// under /admin/v1/, with /openapi.json generated from the types of package wire.
//
// Guaranteed: every route under /admin/v1/ wants the bearer token, compared in
// constant time, before anything of the request is looked at; there are no
// cookies, and no GET changes anything. Bodies are bounded. A write is all or
// nothing, goes through the replicated state machine, and answers when this
// node's data plane acts on it: a key that was created works, a key that was
// revoked does not. A write with the same Idempotency-Key has one effect.
// Errors are application/problem+json (RFC 9457) with texts that name no secret
// and no path.
//
// Not here: who may do what. The token is the platform administrator's; roles
// come with single sign-on. Secrets are shown at creation only; lists and logs
// hold what tells a key from another, never the key.
package admin
