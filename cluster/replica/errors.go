package replica

import (
	"errors"
	"fmt"

	"github.com/bulkhead-ai/bulkhead"
)

// What callers must tell apart. TakeOver answers them inside a *bulkhead.Error
// of kind Unavailable whose code is given here.
var (
	// ErrNoQuorum (no_quorum): too few voters answered.
	ErrNoQuorum = errors.New("too few copies of the journal answer")
	// ErrDamaged (log_damaged): a quorum answers, but damaged copies are in it.
	ErrDamaged = errors.New("a copy of the journal is damaged")
	// ErrBehindLedger (behind_ledger): the best copy ends before a record that
	// the ledger has booked.
	ErrBehindLedger = errors.New("the best copy of the journal is behind the ledger")
	// ErrFenced (fenced): a newer epoch has begun.
	ErrFenced = errors.New("a newer epoch has begun")
	// ErrReceiver: the disk is not the one that was meant.
	ErrReceiver = errors.New("another disk than the one that was asked for")
	// ErrPosition: what was sent does not continue the copy.
	ErrPosition = errors.New("does not continue the copy")
	// ErrLowSpace: there is no room for the next segment.
	ErrLowSpace = errors.New("no space for the copy")
	// ErrPoisoned: the disk refused a write or sync; this tenant's copy answers
	// nothing until the process is restarted.
	ErrPoisoned = errors.New("the copy is poisoned by a disk error")
	// ErrBusy: a worker of this node holds the journal.
	ErrBusy = errors.New("the journal is in use on this node")
	// ErrProtocol: a frame that is malformed or has no place here.
	ErrProtocol = errors.New("protocol violation")
	// ErrRetained: what was asked for has been given up by retention.
	ErrRetained = errors.New("older than what is kept")
	// ErrClosed: the keeper was closed.
	ErrClosed = errors.New("keeper is closed")
)

// errDisk: a write, sync, rename or removal failed, so that nobody knows what is
// on the disk now.
var errDisk = errors.New("disk error")

// refusalCodes are the errors that cross the wire, by their number there.
var refusalCodes = map[byte]error{
	1: ErrFenced, 2: ErrReceiver, 3: ErrPosition, 4: ErrLowSpace, 5: ErrPoisoned,
	6: ErrBusy, 7: ErrProtocol, 8: ErrRetained, 9: ErrDamaged, 10: ErrClosed,
}

// fenced is ErrFenced with the epoch that this node has promised.
type fenced struct{ promised bulkhead.Epoch }

func (f *fenced) Unwrap() error { return ErrFenced }

func (f *fenced) Error() string { return fmt.Sprintf("%v: %d is promised", ErrFenced, f.promised) }

// Promised answers which epoch a copy has promised when TakeOver was refused for
// it (ErrFenced); 0 when the error is another one. The epoch may be above all that
// the replicated state knows: then an older snapshot of that was restored.
func Promised(err error) bulkhead.Epoch {
	var own *fenced
	if errors.As(err, &own) {
		return own.promised
	}
	var peer *refusal
	if errors.As(err, &peer) && errors.Is(peer, ErrFenced) {
		return peer.promised
	}
	return 0
}

const codeOther = 255

// errOther is a peer's error that has no number.
var errOther = errors.New("peer could not do it")

// refusal is an error frame: the peer's answer that it did not do it.
type refusal struct {
	code     byte
	promised bulkhead.Epoch // by the peer; 0 = not said
	text     string         // for the operator
}

func (r *refusal) Unwrap() error {
	if err, ok := refusalCodes[r.code]; ok {
		return err
	}
	return errOther
}

func (r *refusal) Error() string {
	if r.promised > 0 {
		return fmt.Sprintf("%v (epoch %d is promised): %s", r.Unwrap(), r.promised, r.text)
	}
	return fmt.Sprintf("%v: %s", r.Unwrap(), r.text)
}

// refuse is the error frame for err.
func refuse(err error, promised bulkhead.Epoch) *refusal {
	r := &refusal{code: codeOther, promised: promised, text: err.Error()}
	for code, is := range refusalCodes {
		if errors.Is(err, is) {
			r.code = code
		}
	}
	if len(r.text) > maxText {
		r.text = r.text[:maxText]
	}
	return r
}

// unavailable is what TakeOver answers for one of the errors above.
func unavailable(code, message string, err error) error {
	return bulkhead.E(bulkhead.Unavailable, code, message).With(err)
}
