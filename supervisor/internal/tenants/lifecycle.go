package tenants

import (
	"slices"
	"time"

	"go.uber.org/zap"
)

// State is where a tenant's worker is in its life. The names are those of the
// log and the admin API.
//
//	              want                  ready                 idle, suspend, close
//	hibernating --------> starting -------------> serving ----------------> draining
//	  |  ^  ^               |  ^ ^                   |                        |  |
//	  |  |  | close         |  | | want, recover     | exit                   |  |
//	  |  |  +---------------+  | +---- crashed <-----+ (first, or long ago)   |  |
//	  |  |                fail |          ^          |                        |  |
//	  |  |                  v  |  elapsed |          | (again and again)      |  |
//	  |  |             backing_off -------+ <--------+                        |  |
//	  |  +------------------- exit ------------------------------------------+  |
//	  |                                                                          |
//	  +--- suspend ---> suspended <--- exit while suspended ---------------------+
//	            resume: suspended -> hibernating
//
// suspend also leads from crashed, backing_off and (once the start has been
// called off) starting to suspended.
type State string

// The states.
const (
	Hibernating State = "hibernating" // no process; the next request starts one
	Starting    State = "starting"    // spawned or about to be; requests wait
	Serving     State = "serving"
	Draining    State = "draining"    // told to end; new requests wait for the end and start anew
	Crashed     State = "crashed"     // ended unasked; the next request starts it at once
	BackingOff  State = "backing_off" // fails again and again; requests are refused until the pause is over
	Suspended   State = "suspended"   // by an operator; requests are refused
)

var transitions = map[State][]State{
	Hibernating: {Starting, Suspended},
	Starting:    {Serving, BackingOff, Hibernating, Suspended},
	Serving:     {Draining, Crashed, BackingOff},
	Draining:    {Hibernating, Suspended},
	Crashed:     {Starting, Suspended},
	BackingOff:  {Crashed, Suspended},
	Suspended:   {Hibernating},
}

// transition is the only place that changes the state. t.mu is held.
func (t *tenant) transition(to State, fields ...zap.Field) {
	if !slices.Contains(transitions[t.state], to) {
		panic("internal error: tenant " + string(t.id) + ": " + string(t.state) + " -> " + string(to))
	}
	fields = append(fields, zap.String("from", string(t.state)), zap.String("state", string(to)))
	switch to {
	case Crashed, BackingOff:
		t.log.Warn("worker state", fields...)
	default:
		t.log.Info("worker state", fields...)
	}
	t.state, t.since = to, time.Now()
	close(t.changed) // whoever waits looks again
	t.changed = make(chan struct{})
}
