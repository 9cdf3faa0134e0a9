package spawn

import (
	"errors"
	"fmt"
	"os"
)

// ask sends a request and waits for its answer. The answer's descriptors are
// the caller's.
func (s *Spawner) ask(r request, files ...*os.File) (answer, error) {
	c := make(chan answer, 1)
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return answer{}, ErrClosed
	}
	if r.ID == 0 {
		r.ID = s.nextID()
	}
	s.waiting[r.ID] = c
	s.mu.Unlock()
	if err := sendPacket(s.conn, r, files); err != nil {
		s.mu.Lock()
		delete(s.waiting, r.ID)
		s.mu.Unlock()
		return answer{}, fmt.Errorf("ask the spawner: %w", err)
	}
	a, ok := <-c
	if !ok {
		return answer{}, ErrClosed
	}
	if a.reply.Err != "" {
		closeAll(a.files)
		return answer{}, errors.New(a.reply.Err)
	}
	return a, nil
}

// nextID mints a number for a request. The caller holds the lock.
func (s *Spawner) nextID() uint64 {
	s.next++
	return s.next
}

// birth asks for a process. It is known before it exists, so that its end can
// never be missed.
func (s *Spawner) birth(p *Process, r request, files ...*os.File) (answer, error) {
	s.mu.Lock()
	r.ID = s.nextID()
	p.id = r.ID
	s.processes[r.ID] = p
	s.mu.Unlock()
	a, err := s.ask(r, files...)
	if err != nil {
		s.mu.Lock()
		delete(s.processes, r.ID)
		s.mu.Unlock()
		return a, err
	}
	p.pid = a.reply.PID
	return a, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		_ = f.Close()
	}
}
