package trail

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"slices"
	"time"

	"github.com/bulkhead-ai/bulkhead/cluster/audit"
	"go.uber.org/zap"
)

// ServicePeers is the name of the stream on which nodes send each other records.
const ServicePeers = "audit"

// Dialer opens streams to other nodes; see cluster/transport.
type Dialer interface {
	// Open answers a stream that the node's handler of the service serves.
	Open(ctx context.Context, node, service string) (net.Conn, error)
}

// fetchAsk is the first line of a stream: which records. The answer is the
// records that the node has of them, a line each, and an empty line behind the
// last one: a stream that breaks must not look like a whole answer.
type fetchAsk struct {
	Log  string `json:"log"`
	From uint64 `json:"from"`
	To   uint64 `json:"to"`
}

const (
	maxAsk      = 1 << 10          // bytes of a fetchAsk
	maxServed   = 1 << 16          // records in one answer
	silence     = 30 * time.Second // longest time for a piece to be sent or taken
	servedWalks = 4                // answers that are sent at a time
)

// Remote is the copies of other nodes over the cluster's transport.
type Remote struct {
	Node    string // this one
	Members func() []string
	Dialer  Dialer
}

var _ Peers = (*Remote)(nil)

// Nodes implements Peers.
func (r *Remote) Nodes() []string {
	return slices.DeleteFunc(slices.Clone(r.Members()), func(n string) bool { return n == r.Node })
}

// Fetch implements Peers.
func (r *Remote) Fetch(ctx context.Context, node, log string, from, to uint64, fn func([]byte) error) error {
	conn, err := r.Dialer.Open(ctx, node, ServicePeers)
	if err != nil {
		return err
	}
	defer closeNow(conn)
	defer context.AfterFunc(ctx, func() { closeNow(conn) })()
	return fetchFrom(&patient{conn}, fetchAsk{log, from, to}, fn)
}

func fetchFrom(conn io.ReadWriter, ask fetchAsk, fn func([]byte) error) error {
	raw, err := json.Marshal(ask)
	if err != nil {
		return fmt.Errorf("ask for audit records: %w", err)
	}
	if _, err := conn.Write(append(raw, '\n')); err != nil {
		return fmt.Errorf("ask for audit records: %w", err)
	}
	in := bufio.NewScanner(conn)
	in.Buffer(make([]byte, 4<<10), audit.MaxLine+1)
	for in.Scan() {
		if len(in.Bytes()) == 0 {
			return nil
		}
		if err := fn(in.Bytes()); err != nil {
			return err
		}
	}
	if err := in.Err(); err != nil {
		return fmt.Errorf("receive audit records: %w", err)
	}
	return fmt.Errorf("receive audit records: %w", io.ErrUnexpectedEOF)
}

// Server sends other nodes what this node's copy holds.
type Server struct {
	store *Store
	slots chan struct{}
}

// NewServer allocates a Server over the store.
func NewServer(s *Store) *Server { return &Server{store: s, slots: make(chan struct{}, servedWalks)} }

// Serve answers one stream and closes it. It fits the transport's HandleStream
// under ServicePeers. Members may read every log: each keeps a copy of all.
func (v *Server) Serve(ctx context.Context, peer string, conn net.Conn) {
	defer closeNow(conn)
	defer context.AfterFunc(ctx, func() { closeNow(conn) })()
	if err := v.serve(ctx, &patient{conn}); err != nil {
		v.store.cfg.Log.Warn("send audit records", zap.String("peer", peer), zap.Error(err))
	}
}

func (v *Server) serve(ctx context.Context, conn io.ReadWriter) error {
	in := bufio.NewReaderSize(conn, maxAsk)
	raw, err := in.ReadSlice('\n')
	if err != nil {
		return fmt.Errorf("read what is asked for: %w", err)
	}
	var ask fetchAsk
	if err := json.Unmarshal(raw, &ask); err != nil || !validLog(ask.Log) || ask.From == 0 || ask.To < ask.From || ask.To-ask.From >= maxServed {
		return errors.New("read what is asked for: it is no range of a log")
	}
	wait := time.NewTimer(silence / 2)
	defer wait.Stop()
	select {
	case v.slots <- struct{}{}:
		defer func() { <-v.slots }()
	case <-ctx.Done():
		return ctx.Err()
	case <-wait.C:
		return errors.New("too many nodes ask") // the peer asks another one
	}
	out := bufio.NewWriterSize(conn, 64<<10)
	if err := v.store.read(ask.Log, ask.From, ask.To, func(l *line) error {
		out.Write(l.raw)
		return out.WriteByte('\n')
	}); err != nil {
		return err
	}
	out.WriteByte('\n')
	return out.Flush()
}

// read calls fn for the records from..to that are on disk.
func (s *Store) read(log string, from, to uint64, fn func(*line) error) error {
	s.mu.Lock()
	c := s.copies[log]
	s.mu.Unlock()
	if c == nil {
		return nil
	}
	firsts, err := listSegments(c.dir)
	if err != nil {
		return err
	}
	for i, first := range firsts {
		if first > to || i+1 < len(firsts) && firsts[i+1] <= from {
			continue
		}
		lines, _, err := readSegment(log, filepath.Join(c.dir, segmentName(first)))
		if err != nil {
			return err
		}
		for j := range lines {
			if l := &lines[j]; l.seq >= from && l.seq <= to {
				if err := fn(l); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// closeNow closes without waiting for a peer that does not read.
func closeNow(c net.Conn) {
	c.SetDeadline(time.Unix(1, 0))
	c.Close()
}

// patient gives every piece its own time.
type patient struct{ conn net.Conn }

func (c *patient) Read(p []byte) (int, error) {
	c.conn.SetReadDeadline(time.Now().Add(silence))
	return c.conn.Read(p)
}

func (c *patient) Write(p []byte) (int, error) {
	c.conn.SetWriteDeadline(time.Now().Add(silence))
	return c.conn.Write(p)
}
