package member

import (
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"

	"github.com/bulkhead-ai/bulkhead/cluster/transport/ca"
	"github.com/bulkhead-ai/bulkhead/worker/durable"
)

// ErrNone says that a data directory holds no membership.
var ErrNone = errors.New("this node is no member of a cluster")

const (
	nodeName  = "node.pem"
	rootsName = "roots.pem"
	infoName  = "member.json"
)

// info is member.json.
type info struct {
	ClusterID string            `json:"cluster_id"`
	NodeID    string            `json:"node_id"`
	Peers     map[string]string `json:"peers"` // address by node, as of joining
}

// Identity is a membership that was read. Its methods may be called from any
// goroutine.
type Identity struct {
	info
	dir  string
	cert atomic.Pointer[tls.Certificate]
	root atomic.Pointer[x509.CertPool]
}

func dirOf(data string) string { return filepath.Join(data, "member") }

// Open reads the membership in a node's data directory. ErrNone: there is none.
func Open(data string) (*Identity, error) {
	i := &Identity{dir: dirOf(data)}
	raw, err := os.ReadFile(filepath.Join(i.dir, infoName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNone
	}
	if err == nil {
		err = json.Unmarshal(raw, &i.info)
	}
	if err == nil && (i.ClusterID == "" || i.NodeID == "") {
		err = fmt.Errorf("%s names no cluster or no node", infoName)
	}
	if err != nil {
		return nil, fmt.Errorf("read membership: %w", err)
	}
	if err := i.load(); err != nil {
		return nil, fmt.Errorf("read membership: %w", err)
	}
	return i, nil
}

func (i *Identity) load() error {
	raw, err := os.ReadFile(filepath.Join(i.dir, nodeName))
	if err != nil {
		return err
	}
	block, chain := pem.Decode(raw)
	if block == nil {
		return fmt.Errorf("%s holds no key", nodeName)
	}
	key, err := ca.ParseKey(pem.EncodeToMemory(block))
	if err != nil {
		return err
	}
	cert, err := ca.Identity(chain, key)
	if err != nil {
		return err
	}
	i.cert.Store(cert)
	roots, err := os.ReadFile(filepath.Join(i.dir, rootsName))
	if err != nil {
		return err
	}
	pool, err := ca.Roots(roots)
	if err != nil {
		return err
	}
	i.root.Store(pool)
	return nil
}

// Certificate is what the node shows of itself.
func (i *Identity) Certificate() *tls.Certificate { return i.cert.Load() }

// Roots is whom the node trusts.
func (i *Identity) Roots() *x509.CertPool { return i.root.Load() }

// Renew takes a new certificate and its key, on disk first. Connections that are
// made from then on show it.
func (i *Identity) Renew(chain []byte, key *ecdsa.PrivateKey) error {
	cert, err := ca.Identity(chain, key)
	if err != nil {
		return fmt.Errorf("renew certificate: %w", err)
	}
	raw, err := nodePEM(chain, key)
	if err == nil {
		err = durable.Replace(filepath.Join(i.dir, nodeName), raw)
	}
	if err != nil {
		return fmt.Errorf("renew certificate: %w", err)
	}
	i.cert.Store(cert)
	return nil
}

// nodePEM is the key with its chain: one file, so that they always fit.
func nodePEM(chain []byte, key *ecdsa.PrivateKey) ([]byte, error) {
	raw, err := ca.EncodeKey(key)
	return append(raw, chain...), err
}

// store writes a membership. member.json comes last: it is what makes the
// directory a member's.
func store(data string, m info, key *ecdsa.PrivateKey, chain, roots []byte) error {
	dir := dirOf(data)
	err := os.MkdirAll(dir, 0o700)
	if err == nil {
		err = durable.SyncDir(data) // else a power cut may leave a node that thinks it is alone
	}
	if err != nil {
		return fmt.Errorf("store membership: %w", err)
	}
	node, err := nodePEM(chain, key)
	if err != nil {
		return fmt.Errorf("store membership: %w", err)
	}
	text, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("store membership: %w", err)
	}
	for _, f := range []struct {
		name string
		data []byte
	}{{nodeName, node}, {rootsName, roots}, {infoName, text}} {
		if err := durable.Replace(filepath.Join(dir, f.name), f.data); err != nil {
			return fmt.Errorf("store membership: %w", err)
		}
	}
	return nil
}
