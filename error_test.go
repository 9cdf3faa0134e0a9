package bulkhead_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/bulkhead-ai/bulkhead"
)

// TestErrorNeverShowsDetail: what is for the operator stays with the operator,
// in both shapes.
func TestErrorNeverShowsDetail(t *testing.T) {
	e := bulkhead.E(bulkhead.Upstream, "upstream_failed", "The provider failed.").With(errors.New("secret 10.0.0.7"))
	for _, shape := range []bulkhead.Shape{bulkhead.OpenAI, bulkhead.Anthropic} {
		if body := string(e.Body(shape, "req_1")); strings.Contains(body, "secret") {
			t.Errorf("shape %d shows the detail: %s", shape, body)
		}
	}
	if inner := bulkhead.AsError(errors.New("disk /var/x")); strings.Contains(string(inner.Body(bulkhead.OpenAI, "")), "disk") {
		t.Error("an unknown error shows its text")
	}
}

// TestOpenAIShapeHasAllKeys: SDKs fail on a missing key.
func TestOpenAIShapeHasAllKeys(t *testing.T) {
	var got struct{ Error map[string]any }
	if err := json.Unmarshal(bulkhead.E(bulkhead.InvalidRequest, "", "x").Body(bulkhead.OpenAI, "req_1"), &got); err != nil {
		t.Fatal(err)
	}
	for _, k := range []string{"message", "type", "param", "code", "request_id"} {
		if _, ok := got.Error[k]; !ok {
			t.Errorf("error body has no %q", k)
		}
	}
}

func TestInfrastructureIsNeverTheClientsFault(t *testing.T) {
	for _, k := range []bulkhead.Kind{bulkhead.Internal, bulkhead.Upstream, bulkhead.Unavailable, bulkhead.UpstreamTimeout} {
		if s := bulkhead.E(k, "x", "x").Status(); s < 500 {
			t.Errorf("kind %d answers %d", k, s)
		}
	}
}

func TestRetryHeaders(t *testing.T) {
	h := http.Header{}
	(&bulkhead.Error{Kind: bulkhead.RateLimited, RetryAfter: 1500 * time.Millisecond}).SetHeader(h)
	if h.Get("Retry-After") != "2" || h.Get("Retry-After-Ms") != "1500" {
		t.Errorf("rate limited: %v", h)
	}
	h = http.Header{}
	bulkhead.E(bulkhead.QuotaExhausted, "x", "x").SetHeader(h)
	if h.Get("Retry-After") != "" || h.Get("X-Should-Retry") != "false" {
		t.Errorf("quota: %v: a client would sleep until the end of the month", h)
	}
}
