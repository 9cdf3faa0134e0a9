package openai

import (
	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/plugins/provider"
)

// failure maps an error answer. Providers of this family do not charge for
// answers other than 2xx, so every one is NotCharged; what they say in words is
// never passed on, because it may quote the credential or an address.
func failure(status int, body []byte) *provider.Failure {
	f := byStatus(status)
	f.NotCharged = true
	fault := provider.Find(body, "error")
	code, _ := provider.String(provider.Find(fault, "code"))
	switch {
	case code == "insufficient_quota":
		f = quota()
	case f.Kind == bulkhead.InvalidRequest && knownCode(code):
		f.Code = code
	case f.Kind == bulkhead.NotFound && code == "model_not_found":
		f.Code = code
	}
	if param, ok := provider.String(provider.Find(fault, "param")); ok && f.Kind == bulkhead.InvalidRequest && safeParam(param) {
		f.Message = "The provider rejected the field " + param + "."
	}
	return f
}

// byStatus maps a status alone. The provider's refusal of the gateway's own
// credential or budget is never shown as the client's.
func byStatus(status int) *provider.Failure {
	switch status {
	case 400, 409, 415, 422:
		return &provider.Failure{Kind: bulkhead.InvalidRequest, Code: "upstream_invalid_request", Message: "The provider rejected the request."}
	case 404:
		return &provider.Failure{Kind: bulkhead.NotFound, Code: "upstream_not_found", Message: "The provider does not know the model or endpoint.", Retryable: true}
	case 413:
		return &provider.Failure{Kind: bulkhead.TooLarge, Code: "upstream_too_large", Message: "The provider rejected the request as too large."}
	case 401, 403:
		return &provider.Failure{Kind: bulkhead.Upstream, Code: "upstream_auth_failed", Message: "The provider refused the gateway's credential.", Retryable: true}
	case 402:
		return quota()
	case 429:
		return rateLimited()
	case 408, 504, 524:
		return &provider.Failure{Kind: bulkhead.UpstreamTimeout, Code: "upstream_timeout", Message: "The provider did not answer in time.", Retryable: true}
	}
	if status >= 500 {
		return &provider.Failure{Kind: bulkhead.Upstream, Code: "upstream_error", Message: "The provider failed.", Retryable: true}
	}
	return &provider.Failure{Kind: bulkhead.Upstream, Code: "upstream_unexpected_status", Message: "The provider answered in an unexpected way."}
}

func quota() *provider.Failure {
	return &provider.Failure{
		Kind: bulkhead.Upstream, Code: "upstream_quota_exhausted", Retryable: true, NotCharged: true,
		Message: "The gateway's account at the provider is exhausted.",
	}
}

func rateLimited() *provider.Failure {
	return &provider.Failure{
		Kind: bulkhead.Unavailable, Code: "upstream_rate_limited", Retryable: true, NotCharged: true,
		Message: "The provider is limiting the gateway's requests.",
	}
}

func invalidAnswer() *provider.Failure {
	return &provider.Failure{Kind: bulkhead.Upstream, Code: "upstream_invalid_answer", Message: "The provider's answer could not be understood.", Retryable: true}
}

// bodyFailure maps an error that came with status 200, whole or inside a stream.
// Tokens may have been generated before it, so it says nothing about the charge.
func bodyFailure(fault []byte) *provider.Failure {
	var f *provider.Failure
	code, _ := provider.String(provider.Find(fault, "code"))
	kind, _ := provider.String(provider.Find(fault, "type"))
	switch {
	case code == "rate_limit_exceeded" || kind == "rate_limit_error":
		f = rateLimited()
	case code == "insufficient_quota" || kind == "insufficient_quota":
		f = quota()
	default:
		f = &provider.Failure{Kind: bulkhead.Upstream, Code: "upstream_error", Message: "The provider failed.", Retryable: true}
	}
	f.NotCharged = false
	return f
}

// knownCode is the allow-list of error codes that tell a client what is wrong
// with its own request.
func knownCode(code string) bool {
	switch code {
	case "context_length_exceeded", "content_filter", "content_policy_violation", "invalid_value", "invalid_type",
		"invalid_json_schema", "invalid_function_parameters", "invalid_image", "invalid_image_url", "image_too_large",
		"missing_required_parameter", "unknown_parameter", "unsupported_parameter", "unsupported_value",
		"string_above_max_length", "string_below_min_length", "array_above_max_length", "array_below_min_length",
		"integer_above_max_value", "integer_below_min_value", "decimal_above_max_value", "decimal_below_min_value",
		"previous_response_not_found", "tokens_exceeded", "unsupported_country_region_territory", "model_not_found":
		return true
	}
	return false
}

// safeParam accepts the path of a request field, such as "tools[0].function", and
// nothing that could be a secret: at most 64 lower-case letters, underscores and
// dots, and digits only as an index of at most three of them.
func safeParam(s string) bool {
	if len(s) == 0 || len(s) > 64 {
		return false
	}
	digits := -1 // outside of an index
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '[' && digits < 0 && i > 0:
			digits = 0
		case c == ']' && digits > 0:
			digits = -1
		case c >= '0' && c <= '9' && digits >= 0 && digits < 3:
			digits++
		case (c >= 'a' && c <= 'z' || c == '_' || c == '.') && digits < 0:
		default:
			return false
		}
	}
	return digits < 0
}
