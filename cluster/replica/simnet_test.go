package replica

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"slices"
	"sync"
)

// simNet carries frames between the nodes only when the simulator says so. It
// drops, repeats, swaps and delays them, also beyond the end of their stream.
type simNet struct {
	s       *sim
	mu      sync.Mutex
	conns   []*simConn
	old     []ghost // what was sent on streams that have ended
	blocked [simNodes][simNodes]bool
	tasks   sync.WaitGroup
}

// ghost is what an asker sent on a stream.
type ghost struct {
	to     int
	frames [][]byte
}

// simConn is a stream; lane 0 goes from the asker to the keeper.
type simConn struct {
	from, to int
	ends     [4]net.Conn
	lanes    [2]lane
	sent     [][]byte
}

type lane struct {
	frames [][]byte
	out    chan []byte
	eof    bool // the sender has closed
	done   bool // and the receiver knows
}

var errCut = errors.New("the network does not carry it")

func (n *simNet) open(from, to int) (net.Conn, error) {
	target := n.s.nodes[to]
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.blocked[from][to] || n.blocked[to][from] || !target.up || n.s.ending {
		return nil, errCut
	}
	c := &simConn{from: from, to: to}
	c.ends[0], c.ends[1] = net.Pipe()
	c.ends[2], c.ends[3] = net.Pipe()
	n.conns = append(n.conns, c)
	for i := range c.lanes {
		c.lanes[i].out = make(chan []byte, 1<<14)
		n.tasks.Go(func() { n.collect(c, i, c.ends[1+i]) })
		n.tasks.Go(func() { n.pass(c.lanes[i].out, c.ends[2-i]) })
	}
	k, ctx := target.k, target.ctx
	n.tasks.Go(func() { k.HandleStream(ctx, n.s.nodes[from].id, c.ends[3]) })
	return c.ends[0], nil
}

// collect takes frames from a sender.
func (n *simNet) collect(c *simConn, i int, src net.Conn) {
	r := bufio.NewReader(src)
	for {
		var head [4]byte
		_, err := io.ReadFull(r, head[:])
		var body []byte
		if err == nil {
			body = make([]byte, 4+binary.BigEndian.Uint32(head[:]))
			copy(body, head[:])
			_, err = io.ReadFull(r, body[4:])
		}
		n.mu.Lock()
		if err != nil {
			c.lanes[i].eof = true
			n.mu.Unlock()
			return
		}
		c.lanes[i].frames = append(c.lanes[i].frames, body)
		if i == 0 && len(c.sent) < 64 {
			c.sent = append(c.sent, body)
		}
		n.mu.Unlock()
	}
}

// pass gives frames to a receiver.
func (n *simNet) pass(out chan []byte, dst net.Conn) {
	for f := range out {
		if _, err := dst.Write(f); err != nil {
			for range out {
			}
		}
	}
	dst.Close()
}

// ready lists the lanes that have something to deliver.
func (n *simNet) ready() (all []*lane) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, c := range n.conns {
		if n.blocked[c.from][c.to] || n.blocked[c.to][c.from] {
			continue
		}
		for i := range c.lanes {
			if l := &c.lanes[i]; !l.done && (len(l.frames) > 0 || l.eof) {
				all = append(all, l)
			}
		}
	}
	return all
}

// deliver gives the receiver the next frame, or the end.
func (n *simNet) deliver(l *lane) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(l.frames) > 0 {
		l.out <- l.frames[0]
		l.frames = l.frames[1:]
		return
	}
	l.done = true
	close(l.out)
}

// spoil drops, repeats or swaps the next frame of a lane.
func (n *simNet) spoil(l *lane, how int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case len(l.frames) == 0:
	case how == 0:
		l.frames = l.frames[1:]
	case how == 1:
		l.frames = slices.Insert(l.frames, 0, l.frames[0])
	case len(l.frames) > 1:
		l.frames[0], l.frames[1] = l.frames[1], l.frames[0]
	}
}

// cut ends streams at once; what was on its way is lost, or comes much later.
func (n *simNet) cut(which func(*simConn) bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.conns = slices.DeleteFunc(n.conns, func(c *simConn) bool {
		if !which(c) {
			return false
		}
		for _, e := range c.ends {
			e.Close()
		}
		for i := range c.lanes {
			if !c.lanes[i].done {
				close(c.lanes[i].out)
			}
		}
		if len(c.sent) > 0 {
			n.old = append(n.old, ghost{c.to, c.sent})
			n.old = n.old[max(0, len(n.old)-16):]
		}
		return true
	})
}

// haunt delivers what was sent on an ended stream once more.
func (n *simNet) haunt(g ghost) {
	target := n.s.nodes[g.to]
	if !target.up {
		return
	}
	here, there := net.Pipe()
	k, ctx := target.k, target.ctx
	n.tasks.Go(func() { k.HandleStream(ctx, "ghost", there) })
	n.tasks.Go(func() { io.Copy(io.Discard, here) })
	n.tasks.Go(func() {
		for _, f := range g.frames {
			if _, err := here.Write(f); err != nil {
				break
			}
		}
		here.Close()
	})
}

func (n *simNode) dial(_ context.Context, node string) (net.Conn, error) {
	for i, to := range n.s.nodes {
		if to.id == node {
			return n.s.net.open(n.index, i)
		}
	}
	return nil, errCut
}
