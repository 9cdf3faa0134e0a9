package state

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
)

// members reads the sections that a node without a cluster leaves empty.
func (r *sectionReader) members(v *View) error {
	for _, read := range [...]func(*View) error{r.cluster, r.nodes, r.removed, r.tokens} {
		if err := read(v); err != nil {
			return err
		}
	}
	return nil
}

func (r *sectionReader) cluster(v *View) error {
	return r.section(sectionCluster, func(rec []byte) error {
		var c clusterRecord
		if v.cluster != nil {
			return errors.New("two clusters")
		}
		if err := json.Unmarshal(rec, &c); err != nil {
			return err
		}
		if c.Rev > v.index {
			return errors.New("cluster is of the future")
		}
		v.cluster, v.nodesRev = &c.Cluster, c.Rev
		return checkCluster(v.cluster)
	})
}

func (r *sectionReader) nodes(v *View) error {
	var b builder[*command.Node]
	err := r.section(sectionNodes, func(rec []byte) error {
		n := new(command.Node)
		if err := json.Unmarshal(rec, n); err != nil {
			return err
		}
		if n.RaftIndex > v.index || n.Incarnation == 0 || n.JoinedAt < 0 {
			return fmt.Errorf("node %q out of range", n.ID)
		}
		if err := checkNode(n); err != nil {
			return err
		}
		return b.add(n.ID, n)
	})
	v.nodes = b.tree()
	return err
}

func (r *sectionReader) removed(v *View) error {
	var b builder[*removedNode]
	err := r.section(sectionRemoved, func(rec []byte) error {
		n := new(removedNode)
		if err := json.Unmarshal(rec, n); err != nil {
			return err
		}
		if !bulkhead.ValidName(n.ID) || !validRandom(n.Receiver) || n.Incarnation == 0 || n.RemovedAt < 0 {
			return fmt.Errorf("former node %q out of range", n.ID)
		}
		return b.add(n.ID, n)
	})
	v.removed = b.tree()
	return err
}

func (r *sectionReader) tokens(v *View) error {
	var b builder[*joinToken]
	err := r.section(sectionTokens, func(rec []byte) error {
		token := new(joinToken)
		if err := json.Unmarshal(rec, token); err != nil {
			return err
		}
		if err := checkToken(token); err != nil {
			return err
		}
		return b.add(token.ID, token)
	})
	v.tokens = b.tree()
	return err
}

// checkMembers makes sure of what the commands about nodes rest on, and builds
// the index of assignments, which is not stored.
func (v *View) checkMembers() error {
	if err := v.checkNodes(); err != nil {
		return fmt.Errorf("%w: %w", ErrSnapshot, err)
	}
	var err error
	v.tenants.scan("", func(id string, rec *tenant) bool {
		if err = v.checkPlace(rec); err != nil {
			err = fmt.Errorf("%w: tenant %q: %w", ErrSnapshot, id, err)
			return false
		}
		if rec.Assigned != "" {
			v.byNode = v.byNode.put(nodeTenantKey(rec.Assigned, bulkhead.TenantID(id)), true)
		}
		return true
	})
	return err
}

func (v *View) checkNodes() error {
	n := v.nodes.len()
	if v.cluster == nil {
		if n+v.removed.len()+v.tokens.len() > 0 {
			return errors.New("nodes without a cluster")
		}
		return nil
	}
	if n < 1 || n > maxNodes || v.tokens.len() > maxTokens {
		return fmt.Errorf("cluster of %d nodes with %d join tokens", n, v.tokens.len())
	}
	var err error
	v.nodes.scan("", func(id string, n *command.Node) bool {
		if v.Removed(id) {
			err = fmt.Errorf("node %q is a member and a former member", id)
		} else if n.Level < v.cluster.Level {
			err = fmt.Errorf("node %q does not know feature level %d", id, v.cluster.Level)
		}
		return err == nil
	})
	return err
}

// checkPlace looks at where a tenant runs and who keeps its journal.
func (v *View) checkPlace(rec *tenant) error {
	replicas := slices.Concat(rec.Voters, rec.Learners)
	if (v.cluster == nil || rec.Deleted) && (rec.Assigned != "" || len(replicas) > 0) {
		return errors.New("it is placed, but it cannot be")
	}
	if _, ok := v.nodes.get(rec.Assigned); rec.Assigned != "" && !ok {
		return fmt.Errorf("assigned to %q, which is no member", rec.Assigned)
	}
	for _, set := range [...][]command.Replica{rec.Voters, rec.Learners} {
		if err := checkReplicas(set); err != nil {
			return err
		}
	}
	for i, r := range replicas {
		if _, ok := v.nodes.get(r.Node); !ok && !v.Removed(r.Node) {
			return fmt.Errorf("node %q, which keeps a copy, never was a member", r.Node)
		}
		if slices.Contains(replicas[:i], r) {
			return fmt.Errorf("the copy of node %q counts and does not", r.Node)
		}
	}
	return nil
}
