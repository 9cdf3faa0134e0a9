package daemon

import (
	"fmt"
	"testing"
	"time"

	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"github.com/bulkhead-ai/bulkhead/cluster/state"
)

// TestWhoIsHeard: a node that is behind hears a leader of whom its state does not
// know yet, or it could never catch up; one that is not behind hears members only,
// and a removed node is heard by nobody who knows of it.
func TestWhoIsHeard(t *testing.T) {
	node := func(id string) command.Node {
		return command.Node{ID: id, Addr: id + ".example:8082", Level: 1, Receiver: "disk-" + id}
	}
	st, at := state.New(), time.Now()
	for i, cmd := range []command.Command{
		&command.InitCluster{ID: "c", CACert: []byte("x"), CAKey: []byte("x"), Node: node("n1")},
		&command.CreateJoinToken{ID: "t1", Key: make([]byte, 32), ExpiresAt: at.Add(time.Hour).UnixMilli()},
		&command.JoinNode{Token: "t1", Node: node("n2")},
		&command.RemoveNode{ID: "n2"},
	} {
		if _, err := st.Apply(uint64(i+1), command.Envelope{ID: fmt.Sprint("op", i), At: at, Command: cmd}); err != nil {
			t.Fatal(err)
		}
	}
	m := &membership{}
	if m.isMember("n9") != nil {
		t.Error("a node without a state heard nobody")
	}
	m.state.Store(st)
	for _, c := range []struct {
		node   string
		serves bool
		heard  bool
	}{
		{"n1", false, true}, {"n1", true, true}, {"n2", false, false}, {"n2", true, false}, {"n9", false, true}, {"n9", true, false},
	} {
		m.serves.Store(c.serves)
		if heard := m.isMember(c.node) == nil; heard != c.heard {
			t.Errorf("%s, serves %v: heard %v", c.node, c.serves, heard)
		}
	}
}
