package echo_test

import (
	"testing"

	"github.com/bulkhead-ai/bulkhead/plugins/echo"
	"github.com/bulkhead-ai/bulkhead/plugins/plugintest"
	"github.com/bulkhead-ai/bulkhead/plugins/provider"
)

func TestConformanceLinkedIn(t *testing.T) {
	plugintest.Run(t, func(*testing.T) provider.Adapter { return echo.New() }, plugintest.Options{UsageField: "prompt_tokens"})
}

func TestConformancePlugin(t *testing.T) {
	bin := plugintest.Build(t, "github.com/bulkhead-ai/bulkhead/plugins/echo/bulkhead-provider-echo")
	a := plugintest.Start(t, plugintest.Config(t, bin))
	plugintest.Run(t, func(*testing.T) provider.Adapter { return a }, plugintest.Options{UsageField: "prompt_tokens"})
}
