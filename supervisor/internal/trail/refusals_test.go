package trail

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bulkhead-ai/bulkhead/cluster/audit"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
)

func TestRefusalsAreCountedPerAddressAndMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		f, d := NewRefusals(nil), new(told)
		done := make(chan struct{})
		go func() { defer close(done); f.Run(ctx, d) }()
		a, b := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")
		for range 1000 {
			f.Refused("data", a)
		}
		f.Refused("data", netip.MustParseAddr("::ffff:192.0.2.1"))
		f.Refused("admin", a)
		f.Refused("data", b)
		time.Sleep(59 * time.Second)
		if d.count() != 0 {
			t.Fatal("too early")
		}
		time.Sleep(2 * time.Second)
		got := map[string]int64{}
		for _, e := range d.all() {
			if e.Action != ActionRefused || e.Phase != audit.Single || e.Result != audit.Denied || e.Actor.Method != "none" || e.Op == "" {
				t.Errorf("got %+v", e)
			}
			got[e.Object+" "+e.Actor.Address] = e.Count
		}
		if len(got) != 3 || got["port data 192.0.2.1"] != 1001 || got["port admin 192.0.2.1"] != 1 || got["port data 2001:db8::1"] != 1 {
			t.Fatalf("got %v", got)
		}
		time.Sleep(5 * time.Minute)
		if d.count() != 3 {
			t.Fatal("nothing was refused since")
		}
		f.Refused("data", a)
		cancel() // what is left is written
		<-done
		if d.count() != 4 {
			t.Fatal("the last one is lost")
		}
	})
}

func TestRefusalsAreBounded(t *testing.T) {
	f, d := NewRefusals(nil), new(told)
	for i := range 5000 {
		f.Refused("data", netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}))
	}
	f.Refused("data", netip.Addr{})
	if n, total := f.Waiting(); n != maxRefusers || total != 5001 {
		t.Fatal(n, total)
	}
	d.err = errors.New("down")
	for range 3 {
		f.flush(t.Context(), d)
	}
	if n, total := f.Waiting(); n != maxRefusers || total != 5001 {
		t.Fatalf("after failures: %d addresses, %d", n, total)
	}
	d.err = nil
	f.flush(t.Context(), d)
	var total int64
	for _, e := range d.events {
		total += e.Count
	}
	if len(d.events) != maxRefusers+1 || total != 5001 {
		t.Fatalf("%d events, %d", len(d.events), total)
	}
}

func TestAnchorsSignWhatGrew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		signer, key := signing(t)
		var leading atomic.Bool
		a, err := NewAnchors(AnchorsConfig{Cluster: "test.example", Signer: signer, Proposer: c, View: c.View, Leading: leading.Load})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); a.Run(ctx) }()
		size := func() uint64 { p, _ := c.View().Anchor(acme); return p.Size }
		c.put(t, acme, 3)
		time.Sleep(10 * time.Minute)
		if size() != 0 {
			t.Fatal("a follower signed")
		}
		leading.Store(true)
		time.Sleep(30 * time.Second)
		if size() != 0 {
			t.Fatal("too early")
		}
		time.Sleep(35 * time.Second)
		if size() != 3 {
			t.Fatal(size())
		}
		c.put(t, acme, anchorRecords) // as many as that do not wait
		time.Sleep(2 * time.Second)
		if size() != 3+anchorRecords {
			t.Fatal(size())
		}
		p, _ := c.View().Anchor(acme)
		log, _ := c.View().AuditLog(acme)
		root, _ := log.Root()
		if got, err := audit.OpenCheckpoint(p.Note, verifier(t, key)); err != nil || got.Root != root || got.Origin != audit.Origin("test.example", acme) {
			t.Fatal(got, err)
		}
		index := c.proposed()
		time.Sleep(10 * time.Minute)
		if c.proposed() != index {
			t.Fatal("nothing grew, and something was signed")
		}
		cancel()
		<-done
	})
}

func TestAnchorsSplitLargeRounds(t *testing.T) {
	c := newCluster()
	signer, _ := signing(t)
	a, err := NewAnchors(AnchorsConfig{Cluster: "test.example", Signer: signer, Proposer: c, View: c.View})
	if err != nil {
		t.Fatal(err)
	}
	for i := range command.MaxAuditEntries + 5 {
		c.put(t, fmt.Sprintf("tenant/t%d", i), 1)
	}
	if err := a.anchor(t.Context(), c.View().AuditLogs()); err != nil {
		t.Fatal(err)
	}
	for _, l := range c.View().AuditLogs() {
		if p, ok := c.View().Anchor(l.Name); !ok || p.Size != l.Size {
			t.Fatalf("%s is not signed", l.Name)
		}
	}
}
