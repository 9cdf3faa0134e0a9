package replica

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"github.com/bulkhead-ai/bulkhead/worker/durable"
)

// sparePrefix begins the names of zeroed files that wait to become segments; the
// worker's journal uses the same, so each takes over what the other prepared.
const sparePrefix = "spare-"

// spare is a zero-filled, synced file.
type spare struct {
	name string
	f    File
	size int64
}

// spares prepares the next segment of one copy in the background, because
// writing into zeroed space neither fails for lack of it nor drags the file
// system's journal into every sync.
type spares struct {
	dir     Dir
	minFree int64

	mu      sync.Mutex
	ready   *spare
	busy    chan struct{} // closed when the preparation that runs has ended; nil = none runs
	closing bool
}

// prepare makes sure that a spare of this size is on its way.
func (s *spares) prepare(size int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing || s.busy != nil || s.ready != nil {
		return
	}
	done := make(chan struct{})
	s.busy = done
	go func() {
		made, _ := s.make(size) // whoever takes it tries again and gets the reason
		s.mu.Lock()
		s.ready, s.busy = made, nil
		s.mu.Unlock()
		close(done)
	}()
}

// take gives a spare of this size. The error says that there is no room.
func (s *spares) take(size int64) (*spare, error) {
	s.wait()
	s.mu.Lock()
	ready := s.ready
	s.ready = nil
	s.mu.Unlock()
	if ready != nil {
		if ready.size == size {
			return ready, nil
		}
		if err := errors.Join(ready.f.Close(), s.dir.Remove(ready.name)); err != nil {
			return nil, fmt.Errorf("%w: remove %s: %w", errNotReady, ready.name, err)
		}
	}
	made, err := s.make(size)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNotReady, err)
	}
	return made, nil
}

// errNotReady: the next segment could not be prepared; the copy is as it was.
var errNotReady = errors.New("the next segment is not ready")

func (s *spares) wait() {
	s.mu.Lock()
	busy := s.busy
	s.mu.Unlock()
	if busy != nil {
		<-busy
	}
}

// Close waits for the preparation that runs; its file stays for who comes next.
func (s *spares) Close() error {
	s.mu.Lock()
	s.closing = true
	s.mu.Unlock()
	s.wait()
	if s.ready == nil {
		return nil
	}
	f := s.ready.f
	s.ready = nil
	return f.Close()
}

var errClosing = errors.New("the copy is being closed")

// make uses a spare that is there already, or creates one. When there is no
// room, spares of other sizes make some.
func (s *spares) make(size int64) (*spare, error) {
	names, err := s.dir.List()
	if err != nil {
		return nil, fmt.Errorf("list journal: %w", err)
	}
	last := 0
	var others []string
	for _, name := range names {
		digits, ok := strings.CutPrefix(name, sparePrefix)
		if !ok {
			continue
		}
		if n, err := strconv.Atoi(digits); err == nil {
			last = max(last, n)
		}
		if f := s.adopt(name, size); f != nil {
			return &spare{name, f, size}, nil
		}
		others = append(others, name)
	}
	name := sparePrefix + strconv.Itoa(last+1)
	f, err := s.create(name, size)
	if errors.Is(err, ErrLowSpace) && len(others) > 0 {
		for _, other := range others {
			if err := s.dir.Remove(other); err != nil {
				return nil, fmt.Errorf("remove %s: %w", other, err)
			}
		}
		f, err = s.create(name, size)
	}
	if err != nil {
		return nil, fmt.Errorf("prepare segment: %w", err)
	}
	return &spare{name, f, size}, nil
}

// adopt opens the spare name if it has this size, and makes sure it is zero.
func (s *spares) adopt(name string, size int64) File {
	f, err := s.dir.Open(name, true)
	if err != nil {
		return nil
	}
	has, err := f.Size()
	if err != nil || has != size || durable.Zero(f, 0, size, true, s.goOn) != nil {
		f.Close()
		return nil
	}
	return f
}

func (s *spares) create(name string, size int64) (File, error) {
	free, err := s.dir.Free()
	if err != nil {
		return nil, err
	}
	if s.minFree > 0 && free-size < s.minFree {
		return nil, fmt.Errorf("%w: %d bytes free on the disk, want %d left", ErrLowSpace, free, s.minFree)
	}
	f, err := s.dir.Create(name)
	if err != nil {
		return nil, roomError(err)
	}
	err = f.Allocate(size)
	if err == nil {
		err = durable.Zero(f, 0, size, false, s.goOn)
	}
	if err != nil {
		return nil, errors.Join(roomError(err), f.Close(), s.dir.Remove(name))
	}
	return f, nil
}

func roomError(err error) error {
	for _, full := range []error{syscall.ENOSPC, syscall.EDQUOT, syscall.EFBIG} {
		if errors.Is(err, full) {
			return fmt.Errorf("%w: %w", ErrLowSpace, err)
		}
	}
	return err
}

// goOn stops a preparation when the keeper closes.
func (s *spares) goOn() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return errClosing
	}
	return nil
}
