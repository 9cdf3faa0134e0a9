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

// Watch answers a channel that holds a token whenever something was applied
// since the last token was taken: many changes may be one token, none is
// missed. stop ends the watch; the channel is never closed.
func (n *Node) Watch() (changed <-chan struct{}, stop func()) {
	c := make(chan struct{}, 1)
	n.watch.mu.Lock()
	defer n.watch.mu.Unlock()
	n.watch.chans = append(n.watch.chans, c)
	return c, func() {
		n.watch.mu.Lock()
		defer n.watch.mu.Unlock()
		n.watch.chans = slices.DeleteFunc(n.watch.chans, func(o chan struct{}) bool { return o == c })
	}
}

// Changed answers the same channel at every call, for the one loop of a program
// that needs no more; several readers each need a Watch.
func (n *Node) Changed() <-chan struct{} { return n.change }
