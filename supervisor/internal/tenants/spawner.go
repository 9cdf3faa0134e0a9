package tenants

import (
	"context"
	"os"

	"github.com/bulkhead-ai/bulkhead"
)

// Spawner starts processes in their sandboxes. Its methods may be called
// concurrently.
type Spawner interface {
	// Worker starts the worker of a tenant. It duplicates the files it needs
	// before it returns; they stay the caller's to close.
	Worker(ctx context.Context, spec WorkerSpec) (Process, error)
	// Plugin starts a plugin process of a tenant's worker.
	Plugin(ctx context.Context, spec PluginSpec) (Plugin, error)
}

// WorkerSpec is what a worker is born with.
type WorkerSpec struct {
	Tenant bulkhead.TenantID
	Slot   uint32 // the tenant's uid is a base plus this
	Dir    string // the tenant's folder, absolute: it is born there, and has data/ and root/ in it

	Control  *os.File // descriptor 3 of the worker, see worker/control
	Requests *os.File // 4
	Queries  *os.File // 5
	Broker   *os.File // 6
	Replica  *os.File // 7
	Lease    *os.File // 8: the lease page, read only
	Log      *os.File // 2
}

// PluginSpec says which plugin to start.
type PluginSpec struct {
	Worker  Process  // as Spawner.Worker answered it: the plugin ends with it
	Adapter string   // name of the registered plugin
	Digest  string   // SHA-256 (hex) that the opened binary must have
	Env     []string // the whole environment
}

// Process is a running process with everything that it has started.
type Process interface {
	// PID is the process id on the host, for status only.
	PID() int
	// Done is closed when the process and all its children are gone.
	Done() <-chan struct{}
	// Exit says how it ended, e.g. "exit status 2", after Done.
	Exit() string
	// Kill ends it; calling it again, or after the end, does nothing.
	Kill()
	// Ready says that a worker serves: what was granted for a quick start is
	// taken back.
	Ready()
}

// Plugin is a running plugin process.
type Plugin interface {
	Done() <-chan struct{}
	Kill()
	// Pipes are its standard output and error, the caller's to close.
	Pipes() (stdout, stderr *os.File)
	// Connect connects to a unix socket by its name in the plugin's directory.
	Connect(ctx context.Context, name string) (*os.File, error)
}
