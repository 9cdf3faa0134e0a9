package daemon

import (
	"context"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// room watches the space of the data directory. Asking it never waits for the
// disk: while that hangs, the last answer stays.
type room struct {
	free    func() (bytes int64, err error)
	minFree int64 // below this the workers refuse requests
	log     *zap.Logger
	full    atomic.Bool
}

const roomEvery = time.Second

// Full reports whether tenants should leave this node while they are still
// served: there is less than one and a half times of what they need, and was not
// twice as much since.
func (r *room) Full() bool { return r.full.Load() }

func (r *room) run(ctx context.Context) {
	tick := time.NewTicker(roomEvery)
	defer tick.Stop()
	for {
		r.look()
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func (r *room) look() {
	free, err := r.free()
	if err != nil {
		r.log.Warn("look for free disk space", zap.Error(err))
		return
	}
	was := r.full.Load()
	full := free < r.minFree+r.minFree/2 || was && free < 2*r.minFree
	if full == was {
		return
	}
	r.full.Store(full)
	if full {
		r.log.Error("the disk is full: this node's tenants go to nodes that have room", zap.Int64("free_bytes", free))
	} else {
		r.log.Info("the disk has room again", zap.Int64("free_bytes", free))
	}
}

// freeBytes is the space of a file system that is left to unprivileged writers.
func freeBytes(dir string) (int64, error) {
	st, err := fileSystem(dir)
	return int64(st.Bavail) * st.Bsize, err
}

func fileSystem(dir string) (st unix.Statfs_t, err error) {
	err = unix.Statfs(dir, &st)
	return st, err
}
