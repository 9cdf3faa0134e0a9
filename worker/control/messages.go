package control

import (
	"time"

	"github.com/bulkhead-ai/bulkhead"
)

// The descriptors of a worker.
const (
	FDControl  = 3
	FDRequests = 4
	FDQueries  = 5
	FDBroker   = 6
	FDReplica  = 7
	FDLease    = 8
)

// Type is the first byte of a frame.
type Type byte

// The message types. 0 is invalid on purpose.
const (
	TypeStart         Type = 1
	TypeServe         Type = 2
	TypePolicy        Type = 3
	TypeAck           Type = 4
	TypeDrain         Type = 5
	TypeHello         Type = 16
	TypeReady         Type = 17
	TypePolicyApplied Type = 18
	TypeReceipts      Type = 19
	TypeDrained       Type = 20
	TypeFatal         Type = 21
)

// Start is the first message: everything the worker needs before it locks
// itself down. It is sent once.
type Start struct {
	Tenant   bulkhead.TenantID `json:"tenant"`
	Node     string            `json:"node"`
	DataKey  []byte            `json:"data_key"` // 32 bytes; the worker keeps it in memory only
	RootDir  string            `json:"root_dir"` // see Sandbox
	Sandbox  Sandbox           `json:"sandbox"`  // layers to apply
	Policy   Policy            `json:"policy"`
	CABundle []byte            `json:"ca_bundle"` // PEM roots for upstream TLS; empty when no provider uses https
	Tuning   Tuning            `json:"tuning"`
}

// Tuning is what the node's configuration says about every worker.
type Tuning struct {
	SegmentBytes    int64         `json:"segment_bytes"`     // journal segment size; 0 = 4 MiB
	MaxJournalBytes int64         `json:"max_journal_bytes"` // the tenant's disk quota for its journal; 0 = 1 GiB
	MinFreeBytes    int64         `json:"min_free_bytes"`    // refuse new requests below this much free disk; 0 = 256 MiB
	MemoryBytes     int64         `json:"memory_bytes"`      // what the worker may take; 0 = 192 MiB
	MaxBodyBytes    int64         `json:"max_body_bytes"`    // 0 = 32 MiB
	QueueLen        int           `json:"queue_len"`         // waiting requests; 0 = 1024
	QueueTimeout    time.Duration `json:"queue_timeout"`     // longest wait; 0 = 30 s
	KeepAlive       time.Duration `json:"keep_alive"`        // SSE comment interval; 0 = 15 s
	ReceiptInterval time.Duration `json:"receipt_interval"`  // longest age of an unsent receipt; 0 = 1 s
	LogLevel        string        `json:"log_level"`
}

// Sandbox says which layers the worker applies to itself after Start, and which
// of them must hold.
type Sandbox struct {
	Namespaces bool     `json:"namespaces"` // born in own namespaces: pivot into the empty root, drop capabilities
	Landlock   bool     `json:"landlock"`
	Seccomp    bool     `json:"seccomp"`
	Require    []string `json:"require"`  // layer names (see Layer) without which the worker refuses to start
	DataDir    string   `json:"data_dir"` // path of the tenant's data before the pivot; afterwards it is /data

	MemoryBytes int64 `json:"memory_bytes,omitempty"` // RLIMIT_DATA; 0 = 1 GiB
	FileBytes   int64 `json:"file_bytes,omitempty"`   // RLIMIT_FSIZE; 0 = 256 MiB
}

// Layer is one layer of the sandbox and whether it holds.
type Layer struct {
	Name   string `json:"name"` // uid, userns, mount, pid, net, ipc, uts, capabilities, no_new_privs, landlock, seccomp, rlimits, cgroup
	On     bool   `json:"on"`
	Detail string `json:"detail,omitempty"` // e.g. "ABI 6", or why it is off
}

// Hello says that the worker is locked down. It has read nothing of the tenant:
// until Serve another node may own the journal.
type Hello struct {
	PublicKey []byte  `json:"public_key"` // Ed25519, new in every process
	Layers    []Layer `json:"layers"`
}

// Serve carries the epoch that Raft has committed for this process, and how far
// the ledger has already applied the tenant's receipts.
type Serve struct {
	Epoch      bulkhead.Epoch `json:"epoch"`
	AppliedSeq uint64         `json:"applied_seq"` // journal records up to here are booked; the worker resends the rest
	Frontier   []byte         `json:"frontier"`    // receipt.Frontier of the tenant's receipt tree at AppliedSeq
	Replicated bool           `json:"replicated"`  // other copies of the journal are kept: FDReplica carries it, and what must survive the node waits for them
}

// Ready says that the worker accepts requests.
type Ready struct {
	Epoch bulkhead.Epoch `json:"epoch"`
}

// PolicyApplied acknowledges a Policy.
type PolicyApplied struct {
	Rev uint64 `json:"rev"`
}

// Ack tells the worker that receipts up to Seq are in the ledger.
type Ack struct {
	Seq uint64 `json:"seq"`
}

// Drain asks the worker to refuse new requests, finish the running ones until
// the deadline, close its stores and exit.
type Drain struct {
	Timeout time.Duration `json:"timeout"`
}

// Drained is the worker's last message.
type Drained struct {
	HeadSeq uint64 `json:"head_seq"`
}

// Fatal says why the worker cannot serve; it exits after sending it.
type Fatal struct {
	Reason string `json:"reason"` // e.g. "log_damaged", "low_disk", "missing_layer"
	Detail string `json:"detail"`
}
