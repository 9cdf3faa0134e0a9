package state

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"github.com/bulkhead-ai/bulkhead/configs/manifest"
)

// ApplyResult is the result of command.Apply; each list is in the order of the
// command.
type ApplyResult struct {
	Created   []manifest.Ref `json:"created,omitempty"`
	Updated   []manifest.Ref `json:"updated,omitempty"`
	Unchanged []manifest.Ref `json:"unchanged,omitempty"`
	Deleted   []manifest.Ref `json:"deleted,omitempty"`
}

// tx builds the next View. It starts as a copy of the present one, which stays
// untouched: an abandoned tx leaves no trace.
type tx struct {
	View
	now     int64 // Unix milliseconds of this command, never before that of an earlier one
	touched change
	opened  bulkhead.TenantID // whose wrapped secret this command answers
}

// Apply applies the command at a log index. The result is ApplyResult for
// *command.Apply, command.Key for *CreateKey, *RevokeKey and *RotateKey,
// command.DataKey (the one in force) for *SetDataKey, []byte for *OpenWrap,
// command.Erasure for *BeginErasure and *AdvanceErasure, bulkhead.Epoch for *BeginEpoch, BookResult for
// *BookReceipts, command.Node for *InitCluster, *JoinNode and *StartNode,
// []bulkhead.TenantID (those that moved) for *Assign, Replicas for *SetReplicas,
// nil for the others and for a command to be ignored. DecodeResult reads them
// back from their JSON.
//
// A command whose id was applied before changes nothing and is answered as it
// was then, as long as it is among the last 4096 (and their answers within
// 16 MiB).
//
// A *bulkhead.Error is a refusal. Any other error means that this node must
// stop; the state is then the one before the command.
func (s *State) Apply(index uint64, env command.Envelope) (result any, err error) {
	v := s.view.Load()
	if index <= v.index {
		return nil, fmt.Errorf("apply index %d: the state is at %d already", index, v.index)
	}
	next := v.begin(index, env)
	result, err = next.do(env)
	if err != nil {
		var refusal *bulkhead.Error
		if !errors.As(err, &refusal) {
			return nil, fmt.Errorf("apply index %d: %w", index, err)
		}
		result, err = nil, refusal
		next = v.begin(index, env)
	}
	s.view.Store(&next.View)
	return result, err
}

func (v *View) begin(index uint64, env command.Envelope) *tx {
	next := &tx{View: *v}
	next.index = index
	next.clock = max(v.clock, env.At.UnixMilli())
	next.now = next.clock
	return next
}

func (t *tx) do(env command.Envelope) (any, error) {
	switch cmd := env.Command.(type) {
	case nil:
		return nil, nil // a newer build's, and it may be skipped
	case *command.BookReceipts:
		return t.book(cmd)
	case *command.MarkNodes:
		return nil, t.markNodes(cmd)
	}
	if result, known, err := t.done.answered(env); known {
		return result, err
	}
	result, err := t.dispatch(env.Command)
	if err != nil {
		return nil, err
	}
	raw, err := json.Marshal(result)
	if err != nil {
		return nil, fmt.Errorf("keep the answer of command %s: %w", env.ID, err)
	}
	t.done = t.done.add(&done{
		ID: env.ID, Index: t.index, Type: env.Command.Type(), Sum: append([]byte(nil), env.Sum[:]...), Result: raw,
		Tenant: t.secretOf(env.Command, result),
	})
	touched := t.touched
	t.changes = t.changes.add(t.index, &touched)
	return result, nil
}

func (t *tx) dispatch(cmd command.Command) (any, error) {
	switch cmd := cmd.(type) {
	case *command.Apply:
		return t.apply(cmd)
	case *command.CreateKey:
		return t.createKey(cmd)
	case *command.RevokeKey:
		return t.revokeKey(cmd)
	case *command.SetSuspended:
		return nil, t.setSuspended(cmd)
	case *command.SetDataKey:
		return t.setDataKey(cmd)
	case *command.BeginEpoch:
		return t.beginEpoch(cmd)
	case *command.AppendAudit:
		return nil, t.appendAudit(cmd)
	case *command.AnchorAudit:
		return nil, t.anchorAudit(cmd)
	}
	if result, known, err := t.dispatchAccess(cmd); known {
		return result, err
	}
	return t.dispatchCluster(cmd)
}

// dispatchAccess is dispatch for the commands about who may do what, and about
// erasures.
func (t *tx) dispatchAccess(cmd command.Command) (result any, known bool, err error) {
	known = true
	switch cmd := cmd.(type) {
	case *command.RotateKey:
		result, err = t.rotateKey(cmd)
	case *command.CreateWrap:
		err = t.createWrap(cmd)
	case *command.OpenWrap:
		result, err = t.openWrap(cmd)
	case *command.GrantAccess:
		err = t.grantAccess(cmd)
	case *command.EndAccess:
		err = t.endAccess(cmd)
	case *command.BeginErasure:
		result, err = t.beginErasure(cmd)
	case *command.AdvanceErasure:
		result, err = t.advanceErasure(cmd)
	case *command.CancelErasure:
		err = t.cancelErasure(cmd)
	case *command.SetHold:
		err = t.setHold(cmd)
	default:
		known = false
	}
	return result, known, err
}

// dispatchCluster is dispatch for the commands about the nodes. All but the
// first need a cluster.
func (t *tx) dispatchCluster(cmd command.Command) (any, error) {
	if init, ok := cmd.(*command.InitCluster); ok {
		return t.initCluster(init)
	}
	if t.cluster == nil {
		return nil, noCluster()
	}
	switch cmd := cmd.(type) {
	case *command.CreateJoinToken:
		return nil, t.createJoinToken(cmd)
	case *command.JoinNode:
		return t.joinNode(cmd)
	case *command.StartNode:
		return t.startNode(cmd)
	case *command.SetDraining:
		return nil, t.setDraining(cmd)
	case *command.RemoveNode:
		return nil, t.removeNode(cmd)
	case *command.Assign:
		return t.assign(cmd)
	case *command.SetReplicas:
		return t.setReplicas(cmd)
	case *command.SetLevel:
		return nil, t.setLevel(cmd)
	}
	return nil, fmt.Errorf("%w: %T", command.ErrUnknown, cmd)
}
