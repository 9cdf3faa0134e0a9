package state

import (
	"crypto/sha256"
	"math"
	"strconv"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
)

const (
	maxCert      = 64 << 10              // bytes of the authority's certificate
	maxCAKey     = 16 << 10              // bytes of its sealed key
	maxTokens    = 256                   // join tokens that are not forgotten yet
	maxTokenLife = 30 * 24 * 3600 * 1000 // milliseconds
)

// Cluster is what the members of a cluster have in common.
type Cluster struct {
	ID     string `json:"id"`
	CACert []byte `json:"ca_cert"` // PEM
	CAKey  []byte `json:"ca_key"`  // sealed by the cluster key
	Level  uint32 `json:"level"`   // feature level that every member's build knows
}

// joinToken is a token until it expires, used or not: so a used one is told
// from one that never was.
type joinToken struct {
	command.CreateJoinToken
	UsedBy string `json:"used_by,omitempty"` // the node that it took in
}

// initCluster makes the first node's copies the ones that count: they are the
// only ones.
func (t *tx) initCluster(cmd *command.InitCluster) (any, error) {
	if t.cluster != nil {
		return nil, bulkhead.E(bulkhead.Conflict, "cluster_exists", "This node is in a cluster already.")
	}
	n := newNode(cmd.Node, t.now)
	c := Cluster{ID: cmd.ID, CACert: cmd.CACert, CAKey: cmd.CAKey, Level: n.Level}
	if err := checkCluster(&c); err != nil {
		return nil, err
	}
	if err := checkNode(&n); err != nil {
		return nil, err
	}
	t.cluster = &c
	t.putNode(&n)
	only := []command.Replica{{Node: n.ID, Receiver: n.Receiver}}
	for _, id := range t.Tenants() {
		rec, _ := t.tenants.get(string(id))
		next := *rec
		next.Assigned, next.Voters = n.ID, only
		t.keepTenant(id, &next)
	}
	return n, nil
}

func checkCluster(c *Cluster) error {
	switch {
	case !bulkhead.ValidName(c.ID):
		return invalid("id", "The id of a cluster is 1 to 63 of a-z, 0-9 and inner hyphens.")
	case len(c.CACert) == 0 || len(c.CACert) > maxCert:
		return invalid("ca_cert", "The certificate of an authority has 1 to 65536 bytes.")
	case len(c.CAKey) == 0 || len(c.CAKey) > maxCAKey:
		return invalid("ca_key", "The sealed key of an authority has 1 to 16384 bytes.")
	}
	return nil
}

func noCluster() error {
	return bulkhead.E(bulkhead.Conflict, "no_cluster", "This node stands alone. Begin a cluster first (bulkhead cluster init).")
}

// createJoinToken adds a token and forgets the ones that have expired.
func (t *tx) createJoinToken(cmd *command.CreateJoinToken) error {
	token := joinToken{CreateJoinToken: *cmd}
	if err := checkToken(&token); err != nil {
		return err
	}
	if cmd.ExpiresAt <= t.now || cmd.ExpiresAt > t.now+maxTokenLife {
		return invalid("expires_at", "A join token expires within 30 days, and not before now.")
	}
	kept := t.tokens
	t.tokens.scan("", func(id string, old *joinToken) bool {
		if old.ExpiresAt <= t.now {
			kept = kept.del(id)
		}
		return true
	})
	if _, ok := kept.get(cmd.ID); ok {
		return bulkhead.E(bulkhead.Conflict, "token_exists", "There is such a join token already.")
	}
	if kept.len() >= maxTokens {
		return bulkhead.E(bulkhead.Conflict, "too_many_tokens", "There are 256 join tokens. Wait until one expires.")
	}
	t.tokens = kept.put(cmd.ID, &token)
	return nil
}

func checkToken(token *joinToken) error {
	switch {
	case !validRandom(token.ID):
		return invalid("id", "The id of a join token has 1 to 64 printable ASCII characters.")
	case len(token.Key) != sha256.Size:
		return invalid("key", "A join token is stored as a SHA-256 hash of 32 bytes.")
	case token.ExpiresAt < 0:
		return invalid("expires_at", "A time is not negative.")
	}
	return nil
}

// liveToken answers a token that can still take in a node.
func (t *tx) liveToken(id string) (*joinToken, error) {
	token, ok := t.tokens.get(id)
	switch {
	case !ok:
		return nil, bulkhead.E(bulkhead.PermissionDenied, "token_unknown", "The join token is not valid.")
	case token.UsedBy != "":
		return nil, bulkhead.E(bulkhead.PermissionDenied, "token_used", "The join token was used already.")
	case token.ExpiresAt <= t.now:
		return nil, bulkhead.E(bulkhead.PermissionDenied, "token_expired", "The join token has expired.")
	}
	return token, nil
}

// setLevel raises the level once every member's build knows it.
func (t *tx) setLevel(cmd *command.SetLevel) error {
	if cmd.Level == t.cluster.Level {
		return nil
	}
	if cmd.Level < t.cluster.Level {
		return bulkhead.E(bulkhead.Conflict, "level_lowered",
			"The feature level is "+level(t.cluster.Level)+" and never goes back.")
	}
	lowest, behind := uint32(math.MaxUint32), ""
	t.nodes.scan("", func(id string, n *command.Node) bool {
		if n.Level < lowest {
			lowest, behind = n.Level, id
		}
		return true
	})
	if lowest < cmd.Level {
		return bulkhead.E(bulkhead.Conflict, "level_unsupported",
			"The build of node "+quote(behind)+" knows feature level "+level(lowest)+" only.")
	}
	c := *t.cluster
	c.Level = cmd.Level
	t.cluster = &c
	t.nodesRev = t.index
	return nil
}

// checkLevel refuses a build that would not know what others propose.
func (t *tx) checkLevel(known uint32) error {
	if known >= t.cluster.Level {
		return nil
	}
	return bulkhead.E(bulkhead.Conflict, "build_too_old",
		"The cluster is at feature level "+level(t.cluster.Level)+"; this build knows "+level(known)+" only. Upgrade it.")
}

func level(n uint32) string { return strconv.FormatUint(uint64(n), 10) }
