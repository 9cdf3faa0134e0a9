package control

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
)

// BrokerError is the supervisor's refusal of a broker request.
type BrokerError struct {
	Op     string
	Code   string // one of the Code constants
	Detail string // for the operator's log, not for a client
}

func (e *BrokerError) Error() string {
	if e.Detail == "" {
		return "broker " + e.Op + ": " + e.Code
	}
	return "broker " + e.Op + ": " + e.Code + ": " + e.Detail
}

// Timeout makes the error a net.Error where a deadline passed.
func (e *BrokerError) Timeout() bool { return e.Code == CodeTimeout }

// Temporary is part of net.Error.
func (e *BrokerError) Temporary() bool { return e.Code == CodeBusy || e.Code == CodeTimeout }

// Broker is the worker's side of the broker socket. Its methods may be called
// concurrently; a call whose context ends leaves no descriptor behind.
type Broker struct {
	conn *BrokerConn
	done chan struct{} // closed when the reader has ended

	mu      sync.Mutex
	next    uint64
	pending map[uint64]chan brokerAnswer // each has room for its one answer
	err     error                        // why the reader ended
}

type brokerAnswer struct {
	reply BrokerReply
	files []*os.File
}

// NewBroker starts the reader on conn, which it owns from now on.
func NewBroker(conn *BrokerConn) *Broker {
	b := &Broker{conn: conn, done: make(chan struct{}), pending: make(map[uint64]chan brokerAnswer)}
	go b.read()
	return b
}

// Close ends the broker socket and waits for the reader; calls that wait fail.
func (b *Broker) Close() error {
	err := b.conn.Close()
	<-b.done
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// Dial asks for a connected TCP socket to the host of a provider of the policy.
// A refusal is a *BrokerError. Closing the connection shuts it down first, see
// upstreamConn.
func (b *Broker) Dial(ctx context.Context, provider string) (net.Conn, error) {
	a, err := b.call(ctx, BrokerRequest{Op: OpDial, Provider: provider}, 1)
	if err != nil {
		return nil, err
	}
	conn, err := fileConn(OpDial, a.files[0])
	if err != nil {
		return nil, err
	}
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		conn.Close()
		return nil, fmt.Errorf("broker %s: %w: descriptor is a %s socket, want tcp", OpDial, ErrFrame, conn.LocalAddr().Network())
	}
	return &upstreamConn{TCPConn: tcp}, nil
}

// upstreamConn is a connection of which the supervisor holds a duplicate, so
// that it can revoke it. Closing this descriptor alone would tell the provider
// nothing: a cancelled stream would run on and be charged.
type upstreamConn struct{ *net.TCPConn }

// Close ends the connection in both directions, then gives up the descriptor.
func (c *upstreamConn) Close() error {
	_ = c.CloseWrite() // ENOTCONN: the provider was first
	_ = c.CloseRead()
	return c.TCPConn.Close()
}

// PluginStart asks for a plugin process of the provider's adapter. env carries
// go-plugin's handshake variables. The pipes end when the process does.
func (b *Broker) PluginStart(ctx context.Context, provider string, env []string) (id uint64, stdout, stderr *os.File, err error) {
	a, err := b.call(ctx, BrokerRequest{Op: OpPluginStart, Provider: provider, Env: env}, 2)
	if err != nil {
		return 0, nil, nil, err
	}
	return a.reply.Plugin, a.files[0], a.files[1], nil
}

// PluginConnect asks for a connection to a unix socket in the plugin's own
// directory; path is the socket's name in it.
func (b *Broker) PluginConnect(ctx context.Context, id uint64, path string) (net.Conn, error) {
	a, err := b.call(ctx, BrokerRequest{Op: OpPluginConnect, Plugin: id, Path: path}, 1)
	if err != nil {
		return nil, err
	}
	return fileConn(OpPluginConnect, a.files[0])
}

// PluginKill ends a plugin process. Killing one that has ended is no error.
func (b *Broker) PluginKill(ctx context.Context, id uint64) error {
	_, err := b.call(ctx, BrokerRequest{Op: OpPluginKill, Plugin: id}, 0)
	return err
}

// call sends q and waits for its answer with exactly want descriptors.
func (b *Broker) call(ctx context.Context, q BrokerRequest, want int) (brokerAnswer, error) {
	answer, err := b.register(&q)
	if err != nil {
		return brokerAnswer{}, fmt.Errorf("broker %s: %w", q.Op, err)
	}
	if err := b.conn.SendRequest(q); err != nil {
		b.forget(q.ID, answer)
		return brokerAnswer{}, fmt.Errorf("broker %s: %w", q.Op, err)
	}
	select {
	case a, ok := <-answer:
		return checkAnswer(q.Op, a, ok, want)
	case <-ctx.Done():
		b.forget(q.ID, answer)
		return brokerAnswer{}, fmt.Errorf("broker %s: %w", q.Op, ctx.Err())
	}
}

func (b *Broker) register(q *BrokerRequest) (chan brokerAnswer, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err != nil {
		return nil, b.err
	}
	b.next++
	q.ID = b.next
	answer := make(chan brokerAnswer, 1)
	b.pending[q.ID] = answer
	return answer, nil
}

// forget gives up on an answer, or closes what it brought when it came anyway.
func (b *Broker) forget(id uint64, answer chan brokerAnswer) {
	b.mu.Lock()
	delete(b.pending, id)
	b.mu.Unlock()
	select {
	case a := <-answer:
		closeFiles(a.files)
	default:
	}
}

func (b *Broker) read() {
	defer close(b.done)
	for {
		reply, files, err := b.conn.ReadReply()
		if err != nil {
			b.fail(err)
			return
		}
		b.deliver(brokerAnswer{reply, files})
	}
}

// deliver holds the lock while it hands over, so that forget sees the answer
// either in the map or in the channel and never in between.
func (b *Broker) deliver(a brokerAnswer) {
	b.mu.Lock()
	defer b.mu.Unlock()
	answer, ok := b.pending[a.reply.ID]
	if !ok {
		closeFiles(a.files)
		return
	}
	delete(b.pending, a.reply.ID)
	answer <- a
}

func (b *Broker) fail(err error) {
	b.conn.Close()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.err = fmt.Errorf("broker is gone: %w", err)
	for id, answer := range b.pending {
		delete(b.pending, id)
		close(answer)
	}
}

func checkAnswer(op string, a brokerAnswer, ok bool, want int) (brokerAnswer, error) {
	if !ok {
		return brokerAnswer{}, fmt.Errorf("broker %s: %w", op, net.ErrClosed)
	}
	if a.reply.Code != "" {
		closeFiles(a.files)
		return brokerAnswer{}, &BrokerError{Op: op, Code: a.reply.Code, Detail: a.reply.Detail}
	}
	if len(a.files) != want {
		closeFiles(a.files)
		return brokerAnswer{}, fmt.Errorf("broker %s: %w: %d descriptors, want %d", op, ErrFrame, len(a.files), want)
	}
	return a, nil
}

// fileConn turns a connected socket into a net.Conn without socket or connect:
// net.FileConn needs fcntl, getsockopt, setsockopt, getsockname, getpeername
// and epoll_ctl only.
func fileConn(op string, f *os.File) (net.Conn, error) {
	defer f.Close()
	conn, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("broker %s: take over descriptor: %w", op, err)
	}
	return conn, nil
}
