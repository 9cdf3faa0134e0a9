// Command bulkhead-provider-openai is the adapter openai as a plugin process.
package main

import (
	"github.com/bulkhead-ai/bulkhead/plugins/openai"
	"github.com/bulkhead-ai/bulkhead/plugins/sdk"
)

func main() { sdk.Serve(openai.New()) }
