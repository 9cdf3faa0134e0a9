package judge

import (
	"fmt"
	"time"

	"github.com/anishathalye/porcupine"
)

// Act is what was done with a key.
type Act string

// The acts.
const (
	Create Act = "create"
	Use    Act = "use"
	Revoke Act = "revoke"
)

// Op is one act on one key with what came of it. An act whose outcome is not known
// has no End: it may have happened at any time after its start, or never. A use
// that was answered neither by the tenant nor with 401 says nothing and is left
// out by the caller.
type Op struct {
	Key    string
	Act    Act
	OK     bool // of a use: let in; of the others: confirmed
	Begin  int64
	End    int64 // 0 = unknown
	Client int
}

// life is a key's state.
type life int

const (
	unborn life = iota
	alive
	dying // a revocation has begun: some nodes know of it
	dead
)

// finish is the end of a revocation, an act of the model's own.
const finish Act = "finish"

// Keys checks that the acts on each key are linearizable: that there is an order
// of them, in keeping with who finished before whom, in which a key is let in
// exactly between its creation and its revocation. A revocation is promised to be
// in force everywhere when it is answered, not to reach all nodes in one instant:
// so it takes two steps, its beginning and its end, and between the two a key may
// be let in by one node and refused by another.
func Keys(ops []Op, patience time.Duration) (problems []error) {
	byKey := map[string][]porcupine.Operation{}
	var last int64
	for _, o := range ops {
		last = max(last, o.Begin, o.End)
	}
	for _, o := range ops {
		end := o.End
		if end == 0 {
			end = last + 1
		}
		byKey[o.Key] = append(byKey[o.Key], porcupine.Operation{ClientId: o.Client, Input: o, Output: o, Call: o.Begin, Return: end})
		if o.Act == Revoke && o.End != 0 {
			o.Act = finish
			byKey[o.Key] = append(byKey[o.Key], porcupine.Operation{ClientId: o.Client, Input: o, Output: o, Call: o.Begin, Return: end})
		}
	}
	for key, history := range byKey {
		switch porcupine.CheckOperationsTimeout(keyModel(), history, patience) {
		case porcupine.Illegal:
			problems = append(problems, fmt.Errorf("key %s: its %d acts fit no order: %s", key, len(history), tell(history)))
		case porcupine.Unknown:
			problems = append(problems, fmt.Errorf("key %s: no verdict on %d acts within %s", key, len(history), patience))
		}
	}
	return problems
}

func keyModel() porcupine.Model {
	return porcupine.Model{
		Init: func() any { return unborn },
		Step: func(state, input, _ any) (bool, any) {
			o, s := input.(Op), state.(life)
			switch o.Act {
			case Create:
				return s == unborn || o.End == 0, max(s, alive)
			case Revoke:
				if s == unborn {
					return o.End == 0, s // it was refused, or came to nothing
				}
				return true, max(s, dying)
			case finish:
				return s >= dying, dead
			}
			return s == dying || o.OK == (s == alive), s
		},
	}
}

func tell(history []porcupine.Operation) string {
	text := ""
	for i, h := range history {
		o := h.Input.(Op)
		if i == 12 {
			return text + " ..."
		}
		text += fmt.Sprintf(" %s ok=%t [%d, %d]", o.Act, o.OK, o.Begin, o.End)
	}
	return text
}
