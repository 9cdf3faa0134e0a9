package state

import (
	"encoding/json"
	"fmt"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
)

// The window keeps the answers of the last commands so that a proposer who
// does not know whether its command was applied can repeat it under the same
// id. Refusals are not kept: they changed nothing and may be judged again.
// BookReceipts is not kept: its sequence numbers make it apply once. Nor is
// MarkNodes: applied twice it does nothing more.
const (
	windowLen   = 4096
	windowBytes = 16 << 20
)

type window struct {
	byID  tree[*done]
	order tree[string] // ids by big-endian index, oldest first
	bytes int
}

// done is the answer of an applied command.
type done struct {
	ID     string          `json:"id"`
	Index  uint64          `json:"index"`
	Type   command.Type    `json:"type"`
	Sum    []byte          `json:"sum"`
	Result json.RawMessage `json:"result"`

	Tenant bulkhead.TenantID `json:"tenant,omitempty"` // whose secrets are in the result
}

func (d *done) size() int { return len(d.ID) + len(d.Result) + 128 }

func (w window) add(d *done) window {
	w.byID = w.byID.put(d.ID, d)
	w.order = w.order.put(indexKey(d.Index), d.ID)
	w.bytes += d.size()
	for w.byID.len() > windowLen || w.bytes > windowBytes && w.byID.len() > 1 {
		oldest := w.order.first()
		id, _ := w.order.get(oldest)
		old, _ := w.byID.get(id)
		w.order = w.order.del(oldest)
		w.byID = w.byID.del(id)
		w.bytes -= old.size()
	}
	return w
}

// replace puts another answer in the place of one that is kept.
func (w window) replace(d *done) window {
	old, _ := w.byID.get(d.ID)
	w.bytes += d.size() - old.size()
	w.byID = w.byID.put(d.ID, d)
	return w
}

// answered finds the answer of a repeated command. A different command under a
// known id is refused: answering it would claim that it was applied.
func (w window) answered(env command.Envelope) (result any, known bool, err error) {
	d, ok := w.byID.get(env.ID)
	if !ok {
		return nil, false, nil
	}
	if d.Type != env.Command.Type() || string(d.Sum) != string(env.Sum[:]) {
		return nil, true, bulkhead.E(bulkhead.Conflict, "command_id_reused",
			"This id was used for a different command.")
	}
	result, err = d.decode()
	return result, true, err
}

func (d *done) decode() (any, error) {
	if d.Type == command.TypeBookReceipts || d.Type == command.TypeMarkNodes {
		return nil, fmt.Errorf("answer of command %s: type %d has none", d.ID, d.Type)
	}
	result, err := DecodeResult(d.Type, d.Result)
	if err != nil {
		return nil, fmt.Errorf("answer of command %s: %w", d.ID, err)
	}
	return result, nil
}
