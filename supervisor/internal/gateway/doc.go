// Package gateway is the data plane's front door: it terminates TLS, inspects
// every HTTP/1.x head before net/http sees it, finds the tenant of a request by
// its credential alone, applies the tenant's caps, and hands head and opaque
// body bytes to the tenant's worker over a unix socket.
//
// It guarantees that
//   - no byte that two parsers could read differently is ever handed on: such a
//     connection is answered 400 and closed (inspector);
//   - a request is authenticated before its body is read and before its path
//     tells anything; every bad key gets the same bytes for the same work, and
//     what has the form of a token is never looked up as a key;
//   - a key that is bound to addresses is used from those of the connection, never
//     from those that a header names;
//   - a tenant that exhausts its caps (Caps) takes nothing of another's: every
//     count, budget, parking lot and worker connection belongs to one tenant;
//   - a request reaches at most one worker, at most once: it is repeated only
//     while provably not one byte of it was accepted by the first connection;
//   - every answer carries x-request-id and request-id, and every refusal is JSON
//     in the shape of the client's SDK;
//   - trouble of the infrastructure is never told as a bad key or a full limit.
//
// It does not parse bodies, does not know models, prices or limits, and does not
// start workers: Workers does. A request's way is ServeHTTP -> admit -> forward
// (send, answer, copy), each in the file of its name.
package gateway
