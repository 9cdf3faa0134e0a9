package clustertest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// Network connects nodes in memory. What cannot pass waits until the link is
// whole again, as TCP would have it.
type Network struct {
	mu        sync.Mutex
	changed   chan struct{} // closed and replaced whenever something below changes
	cut       map[link]bool
	delay     time.Duration // one way
	listeners map[string]*listener
}

type link struct{ from, to string }

// NewNetwork returns a network without nodes; a message takes delay one way.
func NewNetwork(delay time.Duration) *Network {
	return &Network{changed: make(chan struct{}), cut: map[link]bool{}, delay: delay, listeners: map[string]*listener{}}
}

// Cut stops what goes from one node to another; the other way is untouched.
func (n *Network) Cut(from, to string) { n.set(func() { n.cut[link{from, to}] = true }) }

// Heal makes every link whole.
func (n *Network) Heal() { n.set(func() { clear(n.cut) }) }

// HealNode makes the links of one node whole.
func (n *Network) HealNode(id string) {
	n.set(func() {
		for l := range n.cut {
			if l.from == id || l.to == id {
				delete(n.cut, l)
			}
		}
	})
}

// SetDelay sets how long a message takes, one way.
func (n *Network) SetDelay(d time.Duration) { n.set(func() { n.delay = d }) }

func (n *Network) set(change func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	change()
	close(n.changed)
	n.changed = make(chan struct{})
}

// passes reports whether the link is whole, and a channel that is closed when
// that may have changed.
func (n *Network) passes(from, to string) (bool, <-chan struct{}) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return !n.cut[link{from, to}], n.changed
}

func (n *Network) oneWay() time.Duration {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.delay
}

// travel waits until a message has got from one node to another.
func (n *Network) travel(ctx context.Context, from, to string) error {
	timer := time.NewTimer(n.oneWay())
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return ctx.Err()
	}
	for {
		ok, changed := n.passes(from, to)
		if ok {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Listen makes a node reachable until the listener is closed. It is a
// cluster.Stream.
func (n *Network) Listen(id string) *listener {
	l := &listener{net: n, id: id, accepted: make(chan net.Conn, 64), closed: make(chan struct{})}
	n.set(func() { n.listeners[id] = l })
	return l
}

// up answers the node's listener, nil if it is down.
func (n *Network) up(id string) *listener {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.listeners[id]
}

type listener struct {
	net      *Network
	id       string
	accepted chan net.Conn
	closed   chan struct{}
	once     sync.Once
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.accepted:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *listener) Close() error {
	l.once.Do(func() {
		close(l.closed)
		l.net.set(func() {
			if l.net.listeners[l.id] == l {
				delete(l.net.listeners, l.id)
			}
		})
		for {
			select {
			case c := <-l.accepted:
				c.Close()
			default:
				return
			}
		}
	})
	return nil
}

func (l *listener) Addr() net.Addr { return addr(l.id) }

// DialNode connects to another node: the request must get there and the answer
// back within the timeout.
func (l *listener) DialNode(id string, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	if err := l.net.travel(ctx, l.id, id); err != nil {
		return nil, fmt.Errorf("dial %s: %w", id, os.ErrDeadlineExceeded)
	}
	peer := l.net.up(id)
	if err := l.net.travel(ctx, id, l.id); err != nil {
		return nil, fmt.Errorf("dial %s: %w", id, os.ErrDeadlineExceeded)
	}
	if peer == nil {
		return nil, fmt.Errorf("dial %s: %w", id, syscall.ECONNREFUSED)
	}
	here, there := pair(l.net, l.id, id)
	select {
	case peer.accepted <- there:
		return here, nil
	case <-peer.closed:
		return nil, fmt.Errorf("dial %s: %w", id, syscall.ECONNREFUSED)
	case <-ctx.Done():
		return nil, fmt.Errorf("dial %s: %w", id, errors.Join(os.ErrDeadlineExceeded, here.Close()))
	}
}

type addr string

func (addr) Network() string  { return "memory" }
func (a addr) String() string { return string(a) }
