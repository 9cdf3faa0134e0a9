package cluster

import (
	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
)

// Level is the newest feature level that this build knows.
const Level uint32 = 1

// requiredLevel is the feature level that every member's build must know before
// a command of the type may enter the log; a build that does not know it would
// stop. A new command gets the next level here.
func requiredLevel(command.Type) uint32 { return 1 }

// gate refuses a command that some member may not know yet.
func (n *Node) gate(t command.Type) error {
	c, ok := n.State().Cluster()
	if !ok || n.levels(t) <= max(c.Level, 1) {
		return nil
	}
	return levelTooLow()
}

func levelTooLow() *bulkhead.Error {
	return bulkhead.E(bulkhead.Conflict, "level_too_low",
		"Not every node of the cluster knows this change yet. Finish the upgrade first.")
}
