package audit

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/bulkhead-ai/bulkhead/worker/receipt"
)

// ErrRecord says that bytes are not a line that Log.Append wrote.
var ErrRecord = errors.New("not a record of the audit trail")

// ReadRecord reads a line, without its newline. It takes exactly the form that
// Append writes, so that a line says one thing to whoever reads it, with any
// parser. Errors wrap ErrRecord.
func ReadRecord(line []byte) (Record, error) {
	if len(line) > MaxLine {
		return Record{}, fmt.Errorf("%w: %d bytes, at most %d", ErrRecord, len(line), MaxLine)
	}
	var r Record
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		return Record{}, fmt.Errorf("%w: %w", ErrRecord, err)
	}
	if again, err := json.Marshal(r); err != nil || !bytes.Equal(again, line) {
		return Record{}, fmt.Errorf("%w: another form of its JSON", ErrRecord)
	}
	prev, err := hex.DecodeString(r.Prev)
	if r.Log == "" || r.Seq == 0 || err != nil || (len(prev) != 0) != (r.Seq > 1) || len(prev) > 0 && len(prev) != len(receipt.Hash{}) {
		return Record{}, fmt.Errorf("%w: no place in a log", ErrRecord)
	}
	return r, nil
}
