package gateway

import (
	"time"

	"github.com/bulkhead-ai/bulkhead"
)

// The refusals of the front door. They are values that nobody changes, so that
// the inspector refuses without allocating and every refusal of a kind has the
// same bytes.
var (
	errAmbiguous   = bulkhead.E(bulkhead.InvalidRequest, "ambiguous_request", "The request can be read in more than one way.")
	errMalformed   = bulkhead.E(bulkhead.InvalidRequest, "malformed_request", "The request is not valid HTTP.")
	errHeadLarge   = bulkhead.E(bulkhead.HeadTooLarge, "head_too_large", "The request head is too large.")
	errHeadSlow    = bulkhead.E(bulkhead.RequestTimeout, "head_too_slow", "The request head did not arrive in time.")
	errBodySlow    = bulkhead.E(bulkhead.RequestTimeout, "body_too_slow", "The request body did not arrive in time.")
	errInvalidID   = bulkhead.E(bulkhead.InvalidRequest, "invalid_id", "The path holds characters that are not allowed.")
	errCredentials = bulkhead.E(bulkhead.InvalidRequest, "ambiguous_credentials", "The request carries more than one credential.")
	errTag         = bulkhead.E(bulkhead.InvalidRequest, "invalid_tag", "A x-bulkhead tag must be one line of at most 128 printable characters.")
	errUpgrade     = bulkhead.E(bulkhead.InvalidRequest, "upgrade_not_supported", "Protocol upgrades are not supported.")
	errKey         = bulkhead.E(bulkhead.Unauthenticated, "invalid_api_key", "The API key is missing or not valid.")
	errSuspended   = bulkhead.E(bulkhead.PermissionDenied, "tenant_suspended", "The tenant of this API key is suspended.")
	errToken       = bulkhead.E(bulkhead.Unauthenticated, "invalid_token", "The token is not valid.")
	errSource      = bulkhead.E(bulkhead.PermissionDenied, "source_not_allowed", "This API key may not be used from this address.")
	errNotFound    = bulkhead.E(bulkhead.NotFound, "unknown_url", "There is nothing at this path.")
	errMethod      = bulkhead.E(bulkhead.MethodNotAllowed, "method_not_allowed", "This path does not take this method.")
	errEncoding    = bulkhead.E(bulkhead.UnsupportedMedia, "unsupported_content_encoding", "Compressed request bodies are not accepted.")
	errTooLarge    = bulkhead.E(bulkhead.TooLarge, "request_too_large", "The request body is too large.")
	errUnknown     = bulkhead.E(bulkhead.Upstream, "upstream_outcome_unknown", "The connection was lost while the request was running; it may have been carried out.")

	errAuthRate = &bulkhead.Error{Kind: bulkhead.RateLimited, Code: "auth_rate_limited", RetryAfter: time.Minute,
		Message: "Too many requests with a wrong API key from this address."}
	errInFlight = &bulkhead.Error{Kind: bulkhead.RateLimited, Code: "too_many_requests_in_flight", RetryAfter: time.Second,
		Message: "Too many requests of this tenant are in flight."}
	errConnections = &bulkhead.Error{Kind: bulkhead.RateLimited, Code: "too_many_connections", RetryAfter: time.Second,
		Message: "Too many connections of this tenant are open."}
	errBytes = &bulkhead.Error{Kind: bulkhead.RateLimited, Code: "too_many_bytes_in_flight", RetryAfter: time.Second,
		Message: "Too many bytes of this tenant are in flight."}
	errStarting = &bulkhead.Error{Kind: bulkhead.Unavailable, Code: "tenant_unavailable", RetryAfter: time.Second,
		Message: "The tenant's worker is moving or starting, and too many requests wait for it. Try again."}
	errCluster = &bulkhead.Error{Kind: bulkhead.Unavailable, Code: "cluster_unavailable", RetryAfter: time.Second,
		Message: "The cluster state is not available at the moment."}
	errIdentity = &bulkhead.Error{Kind: bulkhead.Unavailable, Code: "identity_provider_unavailable", RetryAfter: time.Second,
		Message: "The identity provider is not available at the moment."}
	errWorker = &bulkhead.Error{Kind: bulkhead.Unavailable, Code: "worker_unavailable", RetryAfter: time.Second,
		Message: "The tenant's worker is not available at the moment."}
)
