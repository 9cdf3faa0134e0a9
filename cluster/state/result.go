package state

import (
	"encoding/json"
	"fmt"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
)

// DecodeResult reads back what Apply answers to a command of the type, from its
// JSON. Nodes forward results to each other in this form.
func DecodeResult(t command.Type, raw []byte) (any, error) {
	switch t {
	case command.TypeApply:
		return decodeResult[ApplyResult](raw)
	case command.TypeCreateKey, command.TypeRevokeKey, command.TypeRotateKey:
		return decodeResult[command.Key](raw)
	case command.TypeSetDataKey:
		return decodeResult[command.DataKey](raw)
	case command.TypeOpenWrap:
		return decodeResult[[]byte](raw)
	case command.TypeBeginErasure, command.TypeAdvanceErasure:
		return decodeResult[command.Erasure](raw)
	case command.TypeBeginEpoch:
		return decodeResult[bulkhead.Epoch](raw)
	case command.TypeBookReceipts:
		return decodeResult[BookResult](raw)
	case command.TypeInitCluster, command.TypeJoinNode, command.TypeStartNode:
		return decodeResult[command.Node](raw)
	case command.TypeAssign:
		return decodeResult[[]bulkhead.TenantID](raw)
	case command.TypeSetReplicas:
		return decodeResult[Replicas](raw)
	case command.TypeSetSuspended, command.TypeCreateJoinToken, command.TypeMarkNodes,
		command.TypeSetDraining, command.TypeRemoveNode, command.TypeSetLevel, command.TypeAppendAudit,
		command.TypeAnchorAudit, command.TypeCreateWrap, command.TypeGrantAccess, command.TypeEndAccess,
		command.TypeCancelErasure, command.TypeSetHold:
		return nil, nil
	}
	return nil, fmt.Errorf("decode result: %w: type %d", command.ErrUnknown, t)
}

func decodeResult[R any](raw []byte) (any, error) {
	var r R
	if err := json.Unmarshal(raw, &r); err != nil {
		return nil, fmt.Errorf("decode result: %w", err)
	}
	return r, nil
}
