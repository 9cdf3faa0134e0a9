// Command bulkhead-provider-echo is the adapter echo as a plugin process: the
// template of a plugin. It is started by a worker through the supervisor's
// spawner, in a sandbox without network, and ends when its worker does.
package main

import (
	"github.com/bulkhead-ai/bulkhead/plugins/echo"
	"github.com/bulkhead-ai/bulkhead/plugins/sdk"
)

func main() { sdk.Serve(echo.New()) }
