package control

// The descriptors of a plugin process before it becomes the plugin. 0 is
// /dev/null, 1 and 2 are the pipes whose other ends the worker got.
const (
	FDPluginStart  = 3 // one PluginStart as JSON, then end of file
	FDPluginBinary = 4 // sealed copy of the plugin's binary
)

// MaxPluginStart is the largest PluginStart in bytes: it fits into a pipe, so
// that writing it never blocks.
const MaxPluginStart = 60 << 10

// PluginVerb is the first argument of a worker binary that is to become a
// plugin: `bulkhead-worker plugin`.
const PluginVerb = "plugin"

// PluginStart is all that a plugin process learns before it locks itself down
// and executes the binary on FDPluginBinary.
type PluginStart struct {
	Tenant  string   `json:"tenant"`
	Name    string   `json:"name"` // the process shows itself as bulkhead-provider-NAME
	Sandbox Sandbox  `json:"sandbox"`
	Env     []string `json:"env"` // the plugin's whole environment
}
