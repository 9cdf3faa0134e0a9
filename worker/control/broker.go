package control

// Broker requests travel over the seqpacket socket FDBroker, one JSON message a
// packet, at most MaxPacket bytes. Every request is answered once, in any
// order; descriptors ride on the answer (SCM_RIGHTS).

// MaxPacket is the largest broker packet in bytes.
const MaxPacket = 64 << 10

// The broker operations.
const (
	OpDial          = "dial"           // connect to the host of a provider: answers one connected TCP socket
	OpPluginStart   = "plugin_start"   // start a plugin: answers its stdout and stderr pipes
	OpPluginConnect = "plugin_connect" // connect to a plugin's unix socket: answers one connected socket
	OpPluginKill    = "plugin_kill"
)

// BrokerRequest is a worker's wish.
type BrokerRequest struct {
	ID       uint64   `json:"id"`
	Op       string   `json:"op"`
	Provider string   `json:"provider,omitempty"` // OpDial, OpPluginStart: name of a provider of the policy
	Plugin   uint64   `json:"plugin,omitempty"`   // OpPluginConnect, OpPluginKill: id answered by OpPluginStart
	Path     string   `json:"path,omitempty"`     // OpPluginConnect: socket name inside the plugin's directory
	Env      []string `json:"env,omitempty"`      // OpPluginStart: go-plugin's handshake variables
}

// BrokerReply answers one request. Code is empty on success.
type BrokerReply struct {
	ID     uint64 `json:"id"`
	Code   string `json:"code,omitempty"` // denied, refused, timeout, dns, busy, failed, not_found
	Detail string `json:"detail,omitempty"`
	Plugin uint64 `json:"plugin,omitempty"`
}

// The reply codes.
const (
	CodeDenied   = "denied"    // the address is not allowed
	CodeRefused  = "refused"   // the peer refused the connection
	CodeTimeout  = "timeout"   // the deadline passed
	CodeDNS      = "dns"       // the name does not resolve
	CodeBusy     = "busy"      // the tenant's dial or descriptor cap is reached
	CodeFailed   = "failed"    // anything else
	CodeNotFound = "not_found" // no such provider or plugin
)
