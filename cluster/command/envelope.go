package command

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/bulkhead-ai/bulkhead"
)

// The layout of an encoded command. Everything after the header is the body:
// JSON, or the raw batch of BookReceipts, which is the frequent one.
//
//	+------+---------+----------------+--------------------+------+
//	| type | version | header length  | header (JSON)      | body |
//	| 1 B  | 1 B     | 2 B big endian | {id, at_ms,tenant} | ...  |
//	+------+---------+----------------+--------------------+------+

// MaxSize bounds an encoded command in bytes. Raft holds whole commands in
// memory and resends them, so that one must not be arbitrarily large.
const MaxSize = 1 << 20

// MaxIDLen bounds the id of a command in bytes.
const MaxIDLen = 128

// Ignorable is the bit of a type which says that a build that does not know
// the command may skip it.
const Ignorable Type = 0x80

const (
	version    = 1
	prefixLen  = 4
	maxHeader  = 1 << 10
	maxTimeMs  = 1 << 52 // about the year 144,000; keeps times within what time.Time can hold
	typeUnused = 0       // a zeroed file never decodes
)

// Type tells the commands apart on disk. Numbers are never reused.
type Type byte

// The types that this build knows.
const (
	TypeApply           Type = 1
	TypeCreateKey       Type = 2
	TypeRevokeKey       Type = 3
	TypeSetSuspended    Type = 4
	TypeSetDataKey      Type = 5
	TypeBeginEpoch      Type = 6
	TypeBookReceipts    Type = 7
	TypeInitCluster     Type = 8
	TypeCreateJoinToken Type = 9
	TypeJoinNode        Type = 10
	TypeStartNode       Type = 11
	TypeMarkNodes       Type = 12
	TypeSetDraining     Type = 13
	TypeRemoveNode      Type = 14
	TypeAssign          Type = 15
	TypeSetReplicas     Type = 16
	TypeSetLevel        Type = 17
	TypeAppendAudit     Type = 18
	TypeAnchorAudit     Type = 19
	TypeRotateKey       Type = 20
	TypeCreateWrap      Type = 21
	TypeOpenWrap        Type = 22
	TypeGrantAccess     Type = 23
	TypeEndAccess       Type = 24
	TypeBeginErasure    Type = 25
	TypeAdvanceErasure  Type = 26
	TypeCancelErasure   Type = 27
	TypeSetHold         Type = 28
)

var (
	// ErrUnknown says that a command was written by a newer build. The node must
	// stop: it can neither apply nor skip it.
	ErrUnknown = errors.New("command unknown to this build")
	// ErrMalformed says that the bytes are not a command.
	ErrMalformed = errors.New("malformed command")
	// ErrTooLarge says that a command exceeds MaxSize.
	ErrTooLarge = errors.New("command too large")
)

// Command is one of the pointer types of this package: *Apply, *CreateKey,
// *RevokeKey, *SetSuspended, *SetDataKey, *BeginEpoch, *BookReceipts,
// *InitCluster, *CreateJoinToken, *JoinNode, *StartNode, *MarkNodes,
// *SetDraining, *RemoveNode, *Assign, *SetReplicas, *SetLevel, *AppendAudit,
// *AnchorAudit, *RotateKey, *CreateWrap, *OpenWrap, *GrantAccess, *EndAccess,
// *BeginErasure, *AdvanceErasure, *CancelErasure, *SetHold.
type Command interface {
	// Type is the command's number in the log.
	Type() Type
}

// Type implements Command.
func (*Apply) Type() Type { return TypeApply }

// Type implements Command.
func (*CreateKey) Type() Type { return TypeCreateKey }

// Type implements Command.
func (*RevokeKey) Type() Type { return TypeRevokeKey }

// Type implements Command.
func (*SetSuspended) Type() Type { return TypeSetSuspended }

// Type implements Command.
func (*SetDataKey) Type() Type { return TypeSetDataKey }

// Type implements Command.
func (*BeginEpoch) Type() Type { return TypeBeginEpoch }

// Type implements Command.
func (*BookReceipts) Type() Type { return TypeBookReceipts }

// Type implements Command.
func (*InitCluster) Type() Type { return TypeInitCluster }

// Type implements Command.
func (*CreateJoinToken) Type() Type { return TypeCreateJoinToken }

// Type implements Command.
func (*JoinNode) Type() Type { return TypeJoinNode }

// Type implements Command.
func (*StartNode) Type() Type { return TypeStartNode }

// Type implements Command.
func (*MarkNodes) Type() Type { return TypeMarkNodes }

// Type implements Command.
func (*SetDraining) Type() Type { return TypeSetDraining }

// Type implements Command.
func (*RemoveNode) Type() Type { return TypeRemoveNode }

// Type implements Command.
func (*Assign) Type() Type { return TypeAssign }

// Type implements Command.
func (*SetReplicas) Type() Type { return TypeSetReplicas }

// Type implements Command.
func (*SetLevel) Type() Type { return TypeSetLevel }

// Type implements Command.
func (*AppendAudit) Type() Type { return TypeAppendAudit }

// Type implements Command.
func (*AnchorAudit) Type() Type { return TypeAnchorAudit }

// Type implements Command.
func (*RotateKey) Type() Type { return TypeRotateKey }

// Type implements Command.
func (*CreateWrap) Type() Type { return TypeCreateWrap }

// Type implements Command.
func (*OpenWrap) Type() Type { return TypeOpenWrap }

// Type implements Command.
func (*GrantAccess) Type() Type { return TypeGrantAccess }

// Type implements Command.
func (*EndAccess) Type() Type { return TypeEndAccess }

// Type implements Command.
func (*BeginErasure) Type() Type { return TypeBeginErasure }

// Type implements Command.
func (*AdvanceErasure) Type() Type { return TypeAdvanceErasure }

// Type implements Command.
func (*CancelErasure) Type() Type { return TypeCancelErasure }

// Type implements Command.
func (*SetHold) Type() Type { return TypeSetHold }

// Envelope is a decoded command with what was said about it.
type Envelope struct {
	ID      string    // names one intention: a repeated id is applied once
	At      time.Time // the proposer's clock, UTC, milliseconds; the only time the state machine knows
	Command Command   // nil: an ignorable command of a newer build
	Sum     [32]byte  // SHA-256 of type, version and body, zero for BookReceipts; tells a repeated command from a reused id
}

type header struct {
	ID     string `json:"id"`
	At     int64  `json:"at_ms"`
	Tenant string `json:"tenant,omitempty"` // BookReceipts only: its body is raw
}

// Encode writes a command with its id (1 to MaxIDLen bytes) and the time of the
// proposal. Errors: ErrTooLarge, or a reason why the arguments are not
// encodable.
func Encode(cmd Command, id string, at time.Time) ([]byte, error) {
	h := header{ID: id, At: at.UnixMilli()}
	if err := h.check(); err != nil {
		return nil, fmt.Errorf("encode command: %w", err)
	}
	body, err := encodeBody(cmd, &h)
	if err != nil {
		return nil, fmt.Errorf("encode command: %w", err)
	}
	head, err := json.Marshal(h)
	if err != nil {
		return nil, fmt.Errorf("encode command: %w", err)
	}
	if len(head) > maxHeader {
		return nil, fmt.Errorf("encode command: header of %d bytes, at most %d", len(head), maxHeader)
	}
	n := prefixLen + len(head) + len(body)
	if n > MaxSize {
		return nil, fmt.Errorf("encode command: %w: %d bytes, at most %d", ErrTooLarge, n, MaxSize)
	}
	out := make([]byte, 0, n)
	out = append(out, byte(cmd.Type()), version)
	out = binary.BigEndian.AppendUint16(out, uint16(len(head)))
	out = append(out, head...)
	return append(out, body...), nil
}

func encodeBody(cmd Command, h *header) ([]byte, error) {
	if b, ok := cmd.(*BookReceipts); ok {
		h.Tenant = string(b.Tenant)
		return b.Batch, nil
	}
	return json.Marshal(cmd)
}

// Decode reads what Encode wrote. The batch of BookReceipts aliases raw. Errors
// wrap ErrUnknown, ErrMalformed or ErrTooLarge.
func Decode(raw []byte) (Envelope, error) {
	if len(raw) > MaxSize {
		return Envelope{}, fmt.Errorf("decode command: %w: %d bytes, at most %d", ErrTooLarge, len(raw), MaxSize)
	}
	if len(raw) < prefixLen || raw[0]&^byte(Ignorable) == typeUnused {
		return Envelope{}, fmt.Errorf("decode command: %w: no type", ErrMalformed)
	}
	n := int(binary.BigEndian.Uint16(raw[2:]))
	if n > maxHeader || len(raw) < prefixLen+n {
		return Envelope{}, fmt.Errorf("decode command: %w: header of %d bytes", ErrMalformed, n)
	}
	var h header
	if err := decodeStrict(raw[prefixLen:prefixLen+n], &h); err != nil {
		return Envelope{}, fmt.Errorf("decode command header: %w", err)
	}
	if err := h.check(); err != nil {
		return Envelope{}, fmt.Errorf("decode command: %w: %w", ErrMalformed, err)
	}
	env := Envelope{ID: h.ID, At: time.UnixMilli(h.At).UTC()}
	if err := env.decodeBody(h, Type(raw[0]), raw[1], raw[prefixLen+n:]); err != nil {
		return Envelope{}, err
	}
	return env, nil
}

func (e *Envelope) decodeBody(h header, t Type, ver byte, body []byte) error {
	cmd := newCommand(t)
	if cmd == nil || ver != version {
		if t&Ignorable != 0 {
			return nil
		}
		return fmt.Errorf("decode command: %w: type %d, version %d", ErrUnknown, t, ver)
	}
	e.Command = cmd
	if b, ok := cmd.(*BookReceipts); ok {
		b.Batch = body
		b.Tenant = bulkhead.TenantID(h.Tenant)
		return nil // its sequence numbers, not its id, make it apply once
	}
	sum := sha256.New()
	sum.Write([]byte{byte(t), ver})
	sum.Write(body)
	sum.Sum(e.Sum[:0])
	if err := decodeStrict(body, cmd); err != nil {
		return fmt.Errorf("decode command of type %d: %w", t, err)
	}
	return nil
}

func newCommand(t Type) Command {
	switch t {
	case TypeApply:
		return new(Apply)
	case TypeCreateKey:
		return new(CreateKey)
	case TypeRevokeKey:
		return new(RevokeKey)
	case TypeSetSuspended:
		return new(SetSuspended)
	case TypeSetDataKey:
		return new(SetDataKey)
	case TypeBeginEpoch:
		return new(BeginEpoch)
	case TypeBookReceipts:
		return new(BookReceipts)
	case TypeInitCluster:
		return new(InitCluster)
	case TypeCreateJoinToken:
		return new(CreateJoinToken)
	case TypeJoinNode:
		return new(JoinNode)
	case TypeStartNode:
		return new(StartNode)
	case TypeMarkNodes:
		return new(MarkNodes)
	case TypeSetDraining:
		return new(SetDraining)
	case TypeRemoveNode:
		return new(RemoveNode)
	case TypeAssign:
		return new(Assign)
	case TypeSetReplicas:
		return new(SetReplicas)
	case TypeSetLevel:
		return new(SetLevel)
	case TypeAppendAudit:
		return new(AppendAudit)
	case TypeAnchorAudit:
		return new(AnchorAudit)
	case TypeRotateKey:
		return new(RotateKey)
	case TypeCreateWrap:
		return new(CreateWrap)
	case TypeOpenWrap:
		return new(OpenWrap)
	case TypeGrantAccess:
		return new(GrantAccess)
	case TypeEndAccess:
		return new(EndAccess)
	case TypeBeginErasure:
		return new(BeginErasure)
	case TypeAdvanceErasure:
		return new(AdvanceErasure)
	case TypeCancelErasure:
		return new(CancelErasure)
	case TypeSetHold:
		return new(SetHold)
	}
	return nil
}

func (h header) check() error {
	if len(h.ID) == 0 || len(h.ID) > MaxIDLen {
		return fmt.Errorf("id of %d bytes, want 1 to %d", len(h.ID), MaxIDLen)
	}
	for i := range len(h.ID) {
		if c := h.ID[i]; c <= ' ' || c >= 0x7f {
			return errors.New("id: want printable ASCII without spaces")
		}
	}
	if h.At < 0 || h.At > maxTimeMs {
		return fmt.Errorf("time %d ms: out of range", h.At)
	}
	return nil
}

// decodeStrict refuses fields that this build does not know: dropping one would
// apply something else than what was meant. Such a command needs a new version
// number, so a field without one is damage.
func decodeStrict(raw []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if d.InputOffset() != int64(len(raw)) {
		return fmt.Errorf("%w: trailing data", ErrMalformed)
	}
	return nil
}
