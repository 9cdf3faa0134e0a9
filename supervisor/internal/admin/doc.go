// Package admin is the admin API: everything that people can ask of a node,
// under /admin/v1/, with /openapi.json generated from the types of package wire.
//
// Guaranteed: every route under /admin/v1/ but the open ones wants a bearer
// token, the node's or a person's, before anything of the request is looked at;
// there are no cookies, and no GET changes anything. Every operation goes through
// guarded: it has a rule in package access or the API does not start, what the
// rule denies is not done, what must be on record is on record before it is done,
// and a tenant that the caller may not see is answered like one that does not
// exist. A trail that cannot be written refuses (503 audit_unavailable) and
// nothing is done; only what tells nothing of tenants, and must work while
// nothing can be decided, leaves no event. Bodies are bounded. A write is all or
// nothing, goes through the replicated state machine, and answers when this
// node's data plane acts on it: a key that was created works, a key that was
// revoked does not. A write with the same Idempotency-Key has one effect.
// Errors are application/problem+json (RFC 9457) with texts that name no secret
// and no path, and a code for programs.
//
// Not guaranteed: that the outcome of a change is on record. When the trail
// breaks between intent and outcome, the answer stays the true one, the failure
// is logged and counted, and the trail shows an intent without an outcome. A
// request that does not decode is refused without an event: nothing was asked.
//
// Not here: who somebody is (Config.People). Secrets are shown at creation only;
// lists, logs and events hold what tells a key from another, never the key.
package admin
