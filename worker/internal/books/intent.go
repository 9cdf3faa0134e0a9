package books

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/worker/receipt"
)

// intent is what an intent record says beside the receipt:
//
//	+---------+-----------------+-----------------+-----------------+-------------------+
//	| version | reservation     | tokens held     | cost held       | canonical receipt |
//	| 1 byte  | uvarint         | uvarint         | uvarint         |                   |
//	+---------+-----------------+-----------------+-----------------+-------------------+
//
// The receipt is the one that will be booked should nothing be heard of the
// attempt again: outcome unknown, the reservation's cost as upper bound.
type intent struct {
	id     uint64 // limits.Reservation.ID
	tokens int64
	cost   bulkhead.Money
}

const intentVersion = 1

var errIntent = errors.New("malformed intent record")

func appendIntent(dst []byte, in intent, worst *receipt.Receipt) []byte {
	dst = append(dst, intentVersion)
	dst = binary.AppendUvarint(dst, in.id)
	dst = binary.AppendUvarint(dst, uint64(in.tokens))
	dst = binary.AppendUvarint(dst, uint64(in.cost))
	return worst.AppendJSON(dst)
}

func parseIntent(b []byte) (intent, receipt.Receipt, error) {
	var in intent
	if len(b) == 0 || b[0] != intentVersion {
		return in, receipt.Receipt{}, errIntent
	}
	b = b[1:]
	var fields [3]uint64
	for i := range fields {
		v, n := binary.Uvarint(b)
		if n <= 0 || v > 1<<63-1 {
			return in, receipt.Receipt{}, errIntent
		}
		fields[i], b = v, b[n:]
	}
	in = intent{fields[0], int64(fields[1]), bulkhead.Money(fields[2])}
	worst, err := receipt.Parse(b)
	if err != nil {
		return in, worst, fmt.Errorf("%w: %w", errIntent, err)
	}
	return in, worst, nil
}
