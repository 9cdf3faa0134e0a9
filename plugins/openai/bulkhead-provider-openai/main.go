// Command bulkhead-provider-openai is the adapter openai as a plugin process. It
// is started by a worker through the supervisor's spawner, in a sandbox without
// network, and ends when its worker does.
package main

import (
	"github.com/bulkhead-ai/bulkhead/plugins/openai"
	"github.com/bulkhead-ai/bulkhead/plugins/sdk"
)

func main() { sdk.Serve(openai.New()) }
