package journal

import (
	"encoding/binary"
	"errors"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/worker/sealed"
)

// Kind says what a record is. 0 is invalid on purpose.
type Kind byte

// The kinds.
const (
	KindEpoch      Kind = 'E' // a worker began an epoch; see Journal.Begin
	KindIntent     Kind = 'I' // an upstream call is about to be made; reserves room for its settlement
	KindExtend     Kind = 'X' // an open intent holds more now; settled by the settlement of the intent
	KindSettle     Kind = 'S' // the receipt of an attempt that had an intent, however it ended
	KindRefuse     Kind = 'F' // the receipt of a request that was refused before any intent
	KindUnknown    Kind = 'U' // the receipt of an intent whose outcome nobody knows
	KindCheckpoint Kind = 'C' // the state so far: recovery starts here
	KindSnapshot   Kind = 'K' // a part of the checkpoint that follows, for those who have not its file
	KindRetention  Kind = 'R' // older segments are about to be deleted; written by the journal itself
)

func (k Kind) valid() bool {
	switch k {
	case KindEpoch, KindIntent, KindExtend, KindSettle, KindRefuse, KindUnknown, KindCheckpoint, KindSnapshot, KindRetention:
		return true
	}
	return false
}

// IsReceipt reports whether records of this kind hold a canonical receipt.
func (k Kind) IsReceipt() bool { return k == KindSettle || k == KindRefuse || k == KindUnknown }

// The longest data of a record in bytes.
const (
	MaxData      = 96 << 10 // KindCheckpoint, KindSnapshot and other kinds
	MaxEntryData = 4160     // KindIntent, KindExtend, KindSettle, KindRefuse, KindUnknown: a receipt of the longest kind fits
)

func (k Kind) maxData() int {
	if k == KindIntent || k == KindExtend || k.IsReceipt() {
		return MaxEntryData
	}
	return MaxData
}

// Record is one record as Replay gives it.
type Record struct {
	Seq   uint64
	Kind  Kind
	Epoch bulkhead.Epoch
	Data  []byte // valid until the callback returns
}

// frameHead is the longest that a record's frame is beyond its data.
const frameHead = 1 + 4

// settleRoom is the disk space that every open intent reserves.
const settleRoom = (sealed.HeadSize + frameHead + MaxEntryData + sealOverhead + sealed.SectorRoom - 1) / sealed.SectorRoom * sealed.SectorSize

// stewardRoom is the disk space kept for the records of the journal and the
// worker themselves: epochs, retention, a few unknown outcomes after a restart.
const stewardRoom = 4 * settleRoom

var errFrame = errors.New("malformed record")

// splitFrame takes the first record off a group's plain text:
//
//	+------+------------+---------+
//	| kind | length (4) | data    |
//	+------+------------+---------+
func splitFrame(b []byte) (r Record, rest []byte, err error) {
	if len(b) < frameHead || !Kind(b[0]).valid() {
		return Record{}, nil, errFrame
	}
	size := uint64(binary.BigEndian.Uint32(b[1:]))
	data := b[frameHead:]
	if size > uint64(len(data)) || size > MaxData {
		return Record{}, nil, errFrame
	}
	return Record{Kind: Kind(b[0]), Data: data[:size:size]}, data[size:], nil
}
