package state

import (
	"encoding/binary"

	"github.com/bulkhead-ai/bulkhead"
)

// feedLen is how many changing commands the feed remembers.
const feedLen = 1024

// feed remembers what the last commands touched, for readers that mirror the
// state and want to follow cheaply. It is a convenience of this node: it starts
// empty after a restore and is in no snapshot.
type feed struct {
	byIndex tree[*change] // by big-endian index
	floor   uint64        // changes up to here are forgotten
}

// change is what one command touched.
type change struct {
	keys     []bulkhead.KeyID
	tenants  []bulkhead.TenantID
	platform bool // an object of the whole platform: every tenant's Rev moved
}

func (f feed) add(index uint64, c *change) feed {
	if len(c.keys) == 0 && len(c.tenants) == 0 && !c.platform {
		return f
	}
	f.byIndex = f.byIndex.put(indexKey(index), c)
	if f.byIndex.len() > feedLen {
		oldest := f.byIndex.first()
		f.floor = binary.BigEndian.Uint64([]byte(oldest))
		f.byIndex = f.byIndex.del(oldest)
	}
	return f
}

// Changes calls fn with what each command after index since touched: keys that
// were created or revoked, tenants whose record changed, and whether an object
// of the whole platform changed, which moves every tenant's Rev. It answers
// false, without a call, when the view does not know, because too much happened
// or a restore lies between: then everything must be read again. A tenant that
// was assigned elsewhere, or whose copies moved, is among the tenants though its
// Rev stays; of the nodes themselves NodesRev tells.
func (v *View) Changes(since uint64, fn func(keys []bulkhead.KeyID, tenants []bulkhead.TenantID, platform bool)) bool {
	if since < v.changes.floor || since > v.index {
		return false
	}
	v.changes.byIndex.scan(indexKey(since+1), func(_ string, c *change) bool {
		fn(c.keys, c.tenants, c.platform)
		return true
	})
	return true
}

// Rewound counts how often, since this node started, the state was put back to an
// older one. Whatever was derived from it before may be of a future that never
// comes: numbers that only grow, epochs and revisions, have gone back.
func (v *View) Rewound() uint64 { return v.rewound }

// floorAfter is where the feed begins after a restore over the view old. What
// was read before must be known to be void, whatever its index was, unless
// nothing was applied yet.
func (v *View) floorAfter(old *View) uint64 {
	if old.index == 0 {
		return v.index
	}
	return max(old.index, v.index) + 1
}

func indexKey(i uint64) string {
	return string(binary.BigEndian.AppendUint64(nil, i))
}
