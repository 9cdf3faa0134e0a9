package configs

import "time"

// Server is the configuration of one node. Sizes are bytes.
type Server struct {
	NodeID     string    `yaml:"node_id"`     // names the node in the cluster, for ever; required
	DataDir    string    `yaml:"data_dir"`    // absolute path; holds everything the node must not lose
	Listen     string    `yaml:"listen"`      // data plane, host:port
	AllowPlain bool      `yaml:"allow_plain"` // serve without TLS on addresses other than loopback, e.g. behind a balancer
	TLS        TLS       `yaml:"tls"`         // of the data plane and the admin port
	Admin      Admin     `yaml:"admin"`
	Access     Access    `yaml:"access"`
	Cluster    Cluster   `yaml:"cluster"`
	Node       Node      `yaml:"node"`
	Isolation  Isolation `yaml:"isolation"`
	Worker     Worker    `yaml:"worker"`
	Gateway    Gateway   `yaml:"gateway"`
	Journal    Journal   `yaml:"journal"`
	Log        Log       `yaml:"log"`
}

// TLS names the certificate; both or none.
type TLS struct {
	CertFile string `yaml:"cert_file"` // PEM, with the chain
	KeyFile  string `yaml:"key_file"`  // PEM
}

// Enabled reports whether a certificate is configured.
func (t TLS) Enabled() bool { return t.CertFile != "" }

// Admin is the admin port.
type Admin struct {
	Listen    string `yaml:"listen"`     // host:port
	TokenFile string `yaml:"token_file"` // bearer token; "" = DATA_DIR/admin.token, made on first start
}

// Cluster is the cluster port and the cluster key, which is never in Raft.
type Cluster struct {
	Name          string `yaml:"name"`           // what secrets are bound to; the same on every node, for ever
	Listen        string `yaml:"listen"`         // host:port
	Advertise     string `yaml:"advertise"`      // host:port at which the other nodes reach it; "" = listen, when that names a host
	KeyFile       string `yaml:"key_file"`       // 32 bytes, hex or base64, mode 0600; or
	KeyCredential string `yaml:"key_credential"` // name of a systemd credential; the default, "cluster-key", holds when key_file is not given

	RaftMultiplier int `yaml:"raft_multiplier"` // stretches the timeouts of elections, 1..10; more than 1 only where machines stall
}

// Node is what a cluster's placement knows about this machine. A node that
// stands alone does not look at it.
type Node struct {
	Labels   map[string]string `yaml:"labels"`   // a tenant may want them; see manifest.Placement
	Capacity Capacity          `yaml:"capacity"` // of its workers together
}

// Capacity is what a node has for workers; 0 = unlimited.
type Capacity struct {
	Memory Size  `yaml:"memory"`
	CPU    Cores `yaml:"cpu"`
}

// Isolation says how much of the sandbox must hold.
type Isolation struct {
	Mode    Mode     `yaml:"mode"`
	Require []string `yaml:"require"` // layers that must hold whatever the mode
}

// Worker bounds every tenant's process.
type Worker struct {
	IdleTimeout     time.Duration `yaml:"idle_timeout"`     // hibernate after; 0 = never
	MemoryMax       Size          `yaml:"memory_max"`       // hard limit
	CPUWeight       int           `yaml:"cpu_weight"`       // share against other workers, 1..10000
	CPUQuota        int           `yaml:"cpu_quota"`        // ceiling in percent of one core; 0 = none
	PidsMax         int           `yaml:"pids_max"`         // threads and plugin processes
	NoFile          int           `yaml:"nofile"`           // open files
	QueueLen        int           `yaml:"queue_len"`        // requests that may wait
	QueueTimeout    time.Duration `yaml:"queue_timeout"`    // longest wait
	KeepAlive       time.Duration `yaml:"keep_alive"`       // comment interval of silent streams
	ReceiptInterval time.Duration `yaml:"receipt_interval"` // longest time until usage is booked
}

// Gateway caps what one tenant may take of the shared door, so that a neighbour
// keeps its own share.
type Gateway struct {
	Connections   int           `yaml:"connections"`    // client connections
	InFlight      int           `yaml:"in_flight"`      // requests
	BufferedBytes Size          `yaml:"buffered_bytes"` // bytes held on the way
	MaxBody       Size          `yaml:"max_body"`       // of one request
	MinBodyRate   Size          `yaml:"min_body_rate"`  // bytes per second
	HeaderTimeout time.Duration `yaml:"header_timeout"` // for the whole head
	WriteTimeout  time.Duration `yaml:"write_timeout"`  // for a client to take a chunk
	AnswerTimeout time.Duration `yaml:"answer_timeout"` // longest silence of an upstream
	Park          time.Duration `yaml:"park"`           // how long a refusal is held back
	Parked        int           `yaml:"parked"`         // refusals held at a time
	DrainTimeout  time.Duration `yaml:"drain_timeout"`  // for running requests on shutdown
}

// Journal bounds each tenant's journal on disk.
type Journal struct {
	Segment Size `yaml:"segment"`  // of one file
	Quota   Size `yaml:"quota"`    // of all files of a tenant
	MinFree Size `yaml:"min_free"` // refuse requests when the disk has less
}

// Log is the node's own log, JSON lines on standard error.
type Log struct {
	Level string `yaml:"level"` // debug, info, warn, error
}

// Defaults is the configuration of a file that says nothing. It has no node id,
// and it serves every address, for which Validate wants a certificate.
func Defaults() Server {
	return Server{
		DataDir:   "/var/lib/bulkhead",
		Listen:    ":8080",
		Admin:     Admin{Listen: ":8081"},
		Cluster:   Cluster{Name: "bulkhead", Listen: ":8082", RaftMultiplier: 1},
		Isolation: Isolation{Mode: Standard},
		Worker: Worker{
			IdleTimeout:     15 * time.Minute,
			MemoryMax:       192 << 20,
			CPUWeight:       100,
			PidsMax:         128,
			NoFile:          8192,
			QueueLen:        1024,
			QueueTimeout:    30 * time.Second,
			KeepAlive:       15 * time.Second,
			ReceiptInterval: time.Second,
		},
		Gateway: Gateway{
			Connections:   1024,
			InFlight:      128,
			BufferedBytes: 16 << 20,
			MaxBody:       32 << 20,
			MinBodyRate:   1 << 10,
			HeaderTimeout: 5 * time.Second,
			WriteTimeout:  30 * time.Second,
			AnswerTimeout: 15 * time.Minute,
			Park:          100 * time.Millisecond,
			Parked:        512,
			DrainTimeout:  30 * time.Second,
		},
		Journal: Journal{Segment: 4 << 20, Quota: 1 << 30, MinFree: 256 << 20},
		Log:     Log{Level: "info"},
	}
}
