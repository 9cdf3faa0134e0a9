package cluster

import (
	"errors"
	"syscall"
	"time"

	"github.com/bulkhead-ai/bulkhead/worker/durable"
)

// beatEvery is how often a member makes sure that its disk answers.
const beatEvery = time.Second

// beat touches the disk whenever nothing else was written since it last looked:
// a disk that hangs must be noticed also where the log has nothing to write, as
// the node's tenants may have.
func (n *Node) beat() {
	tick := time.NewTicker(beatEvery)
	defer tick.Stop()
	for seen := uint64(0); ; {
		select {
		case <-tick.C:
		case <-n.dead:
			return
		case <-n.done:
			return
		}
		if now := n.disk.guard.writes.Load(); now != seen {
			seen = now
			continue
		}
		_ = n.disk.guard.write("touch the disk", n.disk.touch) // the guard stops the node
		seen = n.disk.guard.writes.Load()
	}
}

// touch overwrites a byte of the lock's file. A full disk is none that fails.
func (d *disk) touch() error {
	_, err := d.lock.WriteAt([]byte{'\n'}, 0)
	if err == nil {
		err = durable.SegmentFile{File: d.lock}.Datasync()
	}
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return nil
	}
	return err
}
