// Command bulkhead-worker is one tenant's process. It is started by the
// supervisor's spawner and by nobody else: it expects the descriptors of
// package worker/control and does nothing without them. In the role "plugin" it
// is the shim that locks a provider plugin down before it runs.
package main

import (
	"fmt"
	"os"

	_ "time/tzdata" // the sandbox has no files: calendar windows need their zones

	"github.com/bulkhead-ai/bulkhead/worker/control"
	"github.com/bulkhead-ai/bulkhead/worker/internal/daemon"
	"github.com/bulkhead-ai/bulkhead/worker/internal/lockdown"
)

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "bulkhead-worker: started by the supervisor only; see `bulkhead dev`")
		os.Exit(2)
	}
	if os.Args[1] == control.PluginVerb {
		fmt.Fprintln(os.Stderr, "bulkhead-worker: plugin:", lockdown.BecomePlugin()) // returns on errors only
		os.Exit(1)
	}
	os.Exit(daemon.Run())
}
