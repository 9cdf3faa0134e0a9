package gateway

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestMetricsAndLog: everything is counted at its tenant, and neither metrics nor
// the most talkative log hold a key, a prompt or a query.
func TestMetricsAndLog(t *testing.T) {
	var logged bytes.Buffer
	sink := zapcore.Lock(zapcore.AddSync(&logged))
	log := zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), sink, zap.DebugLevel))
	r := newRig(t, func(c *Config) { c.Log = log })
	r.fleet.start("acme", echo)
	r.ask(t, post("/v1/completions?secret=query", "secret prompt"))
	r.ask(t, get("/v1/models", "x-api-key: secret-wrong-key"))
	r.ask(t, strings.Replace(post("/v1/completions", "secret prompt"), acmeKey, globexKey, 1)) // no worker
	eventually(t, "three are counted", func() bool {
		return r.count("acme", answered) == 1 && r.count("", refusedAuth) == 1 && r.count("globex", noWorker) == 1
	})
	families, err := r.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	metrics := fmt.Sprint(families)
	for _, want := range []string{"bulkhead_gateway_in_flight", "bulkhead_gateway_parked", "bulkhead_gateway_body_bytes_total"} {
		if !strings.Contains(metrics, want) {
			t.Errorf("metrics lack %s", want)
		}
	}
	if err := r.g.Shutdown(t.Context()); err != nil { // every handler has ended
		t.Fatal(err)
	}
	text := logged.String()
	for _, secret := range []string{"secret", acmeKey, globexKey} {
		if strings.Contains(text+metrics, secret) {
			t.Errorf("%q is in log or metrics:\n%s", secret, text)
		}
	}
	if n := strings.Count(text, `"msg":"request"`); n != 3 {
		t.Errorf("%d request lines:\n%s", n, text)
	}
	if !strings.Contains(text, `"level":"warn"`) {
		t.Errorf("the missing worker is not warned about:\n%s", text)
	}
}

func TestMetricsTwice(t *testing.T) {
	reg := prometheus.NewRegistry()
	if _, err := newMetrics(reg); err != nil {
		t.Fatal(err)
	}
	if _, err := newMetrics(reg); err == nil {
		t.Error("a second gateway on one registry is not refused")
	}
}
