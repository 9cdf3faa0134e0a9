package audit

import (
	"encoding/hex"
	"encoding/json"
	"fmt"

	"github.com/bulkhead-ai/bulkhead/worker/receipt"
)

// Log is how far a log goes. The zero Log is an empty one. A Log is a value:
// Append answers the next one.
type Log struct {
	Name     string `json:"name"`
	Size     uint64 `json:"size"`           // records
	At       int64  `json:"at,omitempty"`   // Unix milliseconds of the last record
	Head     []byte `json:"head,omitempty"` // leaf hash of the last record
	Frontier []byte `json:"frontier,omitempty"`
}

// Append makes the event the next record of the log and answers its line,
// without a newline, and the log that ends with it.
func (l Log) Append(atMS int64, e Event) (Log, []byte, error) {
	r := Record{Log: l.Name, Seq: l.Size + 1, At: max(atMS, l.At), Prev: hex.EncodeToString(l.Head), Event: e}
	line, err := json.Marshal(r)
	if err != nil {
		return l, nil, fmt.Errorf("encode record %d of %s: %w", r.Seq, l.Name, err)
	}
	if len(line) > MaxLine {
		return l, nil, fmt.Errorf("record %d of %s: %d bytes, at most %d", r.Seq, l.Name, len(line), MaxLine)
	}
	f, err := l.frontier()
	if err != nil {
		return l, nil, err
	}
	leaf := receipt.LeafHash(line)
	f.Append(leaf)
	raw, err := f.MarshalBinary()
	if err != nil {
		return l, nil, fmt.Errorf("tree of %s: %w", l.Name, err)
	}
	return Log{Name: l.Name, Size: r.Seq, At: r.At, Head: leaf[:], Frontier: raw}, line, nil
}

// Root is the root of the log's tree.
func (l Log) Root() (receipt.Hash, error) {
	f, err := l.frontier()
	if err != nil {
		return receipt.Hash{}, err
	}
	return f.Root(), nil
}

func (l Log) frontier() (*receipt.Frontier, error) {
	f := new(receipt.Frontier)
	if len(l.Frontier) == 0 {
		return f, nil
	}
	if err := f.UnmarshalBinary(l.Frontier); err != nil {
		return nil, fmt.Errorf("tree of %s: %w", l.Name, err)
	}
	return f, nil
}
