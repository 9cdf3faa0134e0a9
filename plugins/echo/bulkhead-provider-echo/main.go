// Command bulkhead-provider-echo is the adapter echo as a plugin process.
package main

import (
	"github.com/bulkhead-ai/bulkhead/plugins/echo"
	"github.com/bulkhead-ai/bulkhead/plugins/sdk"
)

func main() { sdk.Serve(echo.New()) }
