package cluster

import (
	"slices"
	"sync"
)

// watchers are the channels that are told of changes.
type watchers struct {
	mu    sync.Mutex
	chans []chan struct{}
}

// notify leaves a token in every channel that has none.
func (w *watchers) notify() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.chans {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

func (w *watchers) add() (changed <-chan struct{}, stop func()) {
	c := make(chan struct{}, 1)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.chans = append(w.chans, c)
	return c, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.chans = slices.DeleteFunc(w.chans, func(o chan struct{}) bool { return o == c })
	}
}

// Watch answers a channel that holds a token whenever something was applied
// since the last token was taken: many changes may be one token, none is
// missed. stop ends the watch; the channel is never closed.
func (n *Node) Watch() (changed <-chan struct{}, stop func()) { return n.watch.add() }

// Changed answers the same channel at every call, for the one loop of a program
// that needs no more; several readers each need a Watch.
func (n *Node) Changed() <-chan struct{} { return n.change }
