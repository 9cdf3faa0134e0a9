package trail

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bulkhead-ai/bulkhead/cluster/audit"
)

// piped connects to servers by pipes.
type piped map[string]func(context.Context, string, net.Conn)

func (p piped) Open(ctx context.Context, node, service string) (net.Conn, error) {
	serve := p[node]
	if serve == nil || service != ServicePeers {
		return nil, errors.New("unreachable")
	}
	here, there := net.Pipe()
	go serve(ctx, "n1", there)
	return here, nil
}

func TestRecordsTravelBetweenNodes(t *testing.T) {
	c := newCluster()
	p := newPlace(t, c)
	whole := p.open(t)
	c.put(t, acme, 60)
	whole.follow()
	c.forget()
	cutOff := func(_ context.Context, _ string, conn net.Conn) {
		bufio.NewReader(conn).ReadString('\n')
		conn.Write([]byte("{\"log\":\"tenant/acme\""))
		conn.Close()
	}
	q := p.beside(t)
	q.peers = &Remote{
		Node: "n1", Members: func() []string { return []string{"n1", "n2", "n3", "n4"} },
		Dialer: piped{"n3": cutOff, "n4": NewServer(whole).Serve},
	}
	s := q.open(t)
	s.mend(t.Context(), new(told), true)
	mustHold(t, s, acme, 60)

	if nodes := fmt.Sprint(q.peers.Nodes()); nodes != "[n2 n3 n4]" {
		t.Fatal(nodes)
	}
	count := 0
	if err := q.peers.Fetch(t.Context(), "n4", acme, 10, 19, func([]byte) error { count++; return nil }); err != nil || count != 10 {
		t.Fatal(count, err)
	}
	if err := q.peers.Fetch(t.Context(), "n4", "tenant/nobody", 1, 9, func([]byte) error { t.Error("a record"); return nil }); err != nil {
		t.Fatal(err)
	}
	if err := q.peers.Fetch(t.Context(), "n3", acme, 1, 9, func([]byte) error { return nil }); err == nil {
		t.Fatal("a cut answer looks whole")
	}
	stop := errors.New("stop")
	if err := q.peers.Fetch(t.Context(), "n4", acme, 1, 60, func([]byte) error { return stop }); !errors.Is(err, stop) {
		t.Fatal(err)
	}
}

func TestHostilePeersAreLeft(t *testing.T) {
	c := newCluster()
	c.put(t, audit.Platform, 3)
	s := newPlace(t, c).open(t)
	for name, ask := range map[string]string{
		"no json": "hello\n", "another place": `{"log":"../../etc","from":1,"to":2}` + "\n", "no range": `{"log":"platform","from":3,"to":2}` + "\n",
		"from nothing": `{"log":"platform","from":0,"to":2}` + "\n", "too much": `{"log":"platform","from":1,"to":99999999}` + "\n", "long": strings.Repeat("x", 4096),
	} {
		here, there := net.Pipe()
		go NewServer(s).Serve(t.Context(), "n2", there)
		go here.Write([]byte(ask))
		if got, _ := io.ReadAll(here); len(got) != 0 {
			t.Errorf("%s: answered %q", name, got)
		}
		here.Close()
	}
}

// TestSilentPeersAreLeft: a node that stops sending in the middle holds nothing.
func TestSilentPeersAreLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		silent := func(ctx context.Context, _ string, conn net.Conn) {
			io.CopyN(io.Discard, conn, 10)
			<-ctx.Done()
			conn.Close()
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		r := &Remote{Node: "n1", Members: func() []string { return []string{"n2"} }, Dialer: piped{"n2": silent}}
		begun := time.Now()
		if err := r.Fetch(ctx, "n2", acme, 1, 9, func([]byte) error { return nil }); err == nil || time.Since(begun) > time.Minute {
			t.Fatal(err, time.Since(begun))
		}
	})
}
