package trail

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/audit"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
)

func exported(t *testing.T, s *Store, log string) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := s.Export(t.Context(), log, &out); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestExportsAreVerifiedOffline(t *testing.T) {
	c := newCluster()
	p := newPlace(t, c)
	c.put(t, acme, 5)
	s := p.open(t)
	p.anchor(t, s)
	c.put(t, acme, 5)
	c.put(t, "tenant/globex", 3)
	s.follow()
	good := exported(t, s, acme)
	r, err := VerifyBundle(bytes.NewReader(good), verifier(t, p.key))
	if err != nil || r.Log != acme || r.Records != 10 || r.Checkpoints != 2 || r.Origin != audit.Origin("test.example", acme) || !r.First.Before(r.Last) {
		t.Fatalf("%v %+v", err, r)
	}
	if _, err := VerifyBundle(bytes.NewReader(good), otherVerifier(t)); !errors.Is(err, audit.ErrCheckpoint) {
		t.Fatalf("another key: %v", err)
	}
	globex := exported(t, s, "tenant/globex")
	lines := bytes.SplitAfter(good, []byte("\n")) // head, two checkpoints, ten records, end, nothing
	join := func(change func(l [][]byte) [][]byte) []byte {
		l := make([][]byte, len(lines))
		for i := range lines {
			l[i] = bytes.Clone(lines[i])
		}
		return bytes.Join(change(l), nil)
	}
	for name, bad := range map[string]struct {
		raw []byte
		seq uint64 // of the damage, 0: no record is to blame
	}{
		"changed":            {join(func(l [][]byte) [][]byte { l[6] = bytes.Replace(l[6], []byte("ada"), []byte("eve"), 1); return l }), 4},
		"not json":           {join(func(l [][]byte) [][]byte { l[6][0] = 'x'; return l }), 4},
		"deleted":            {join(func(l [][]byte) [][]byte { return append(l[:5:5], l[6:]...) }), 3},
		"swapped":            {join(func(l [][]byte) [][]byte { l[5], l[6] = l[6], l[5]; return l }), 3},
		"twice":              {join(func(l [][]byte) [][]byte { return append(append(l[:6:6], l[5]), l[6:]...) }), 4},
		"of another log":     {join(func(l [][]byte) [][]byte { l[4] = bytes.SplitAfter(globex, []byte("\n"))[3]; return l }), 2},
		"last one changed":   {join(func(l [][]byte) [][]byte { l[12] = bytes.Replace(l[12], []byte("ada"), []byte("eve"), 1); return l }), 10},
		"end cut off":        {join(func(l [][]byte) [][]byte { return l[:13] }), 0},
		"records cut off":    {join(func(l [][]byte) [][]byte { return append(l[:11:11], []byte("{\"end\":8}\n")) }), 9},
		"checkpoint removed": {join(func(l [][]byte) [][]byte { return append(l[:2:2], l[3:]...) }), 0},
		"something behind":   {append(bytes.Clone(good), "{}\n"...), 0},
		"empty":              {nil, 0},
		"a filtered list":    {bytes.Join(lines[3:8], nil), 0},
		"other name":         {bytes.Replace(good, []byte(acme), []byte("tenant/globex"), 1), 0},
	} {
		_, err := VerifyBundle(bytes.NewReader(bad.raw), verifier(t, p.key))
		var d *audit.Damage
		switch {
		case err == nil:
			t.Errorf("%s: it holds", name)
		case bad.seq > 0 && (!errors.As(err, &d) || d.Seq != bad.seq):
			t.Errorf("%s: want record %d, got %v", name, bad.seq, err)
		}
	}
	records := len(lines[0]) + len(lines[1]) + len(lines[2])
	for i := records; i < len(good); i++ { // not one byte of what is proven can be changed
		bad := bytes.Clone(good)
		bad[i] ^= 1
		if _, err := VerifyBundle(bytes.NewReader(bad), verifier(t, p.key)); err == nil {
			t.Fatalf("byte %d of %d changed (%q): it holds", i, len(good), good[max(0, i-20):i+1])
		}
	}
	var none *bulkhead.Error
	if err := s.Export(t.Context(), "tenant/nobody", new(bytes.Buffer)); !errors.As(err, &none) || none.Code != "log_not_found" {
		t.Fatal(err)
	}
}

func FuzzVerifyBundle(f *testing.F) {
	f.Add([]byte(`{"bundle":"bulkhead-audit-1","log":"platform","records":0}` + "\n" + `{"end":1}`))
	f.Add([]byte(`{"bundle":"bulkhead-audit-1","log":"platform"}` + "\n" + `{"checkpoint":"x"}`))
	other := otherVerifier(f)
	f.Fuzz(func(t *testing.T, raw []byte) {
		if r, err := VerifyBundle(bytes.NewReader(raw), other); err == nil {
			t.Fatalf("nothing was signed: %+v", r)
		}
	})
}

func TestSearchFilters(t *testing.T) {
	c := newCluster()
	p := newPlace(t, c)
	s := p.open(t)
	begun := c.now
	for i := range 60 {
		e := event([]string{"apply", "create-key", "logs"}[i%3])
		e.Actor.Name, e.Request, e.Object = fmt.Sprintf("p%d@bank.example", i%2), fmt.Sprintf("req_%d", i), fmt.Sprintf("Tenant t%d", i%5)
		if i%10 == 0 {
			e.Result = audit.Denied
		}
		cmd := &command.AppendAudit{Entries: []command.AuditEntry{{Log: acme, Event: e}}}
		if _, err := c.ProposeID(t.Context(), fmt.Sprint(i), cmd); err != nil {
			t.Fatal(err)
		}
	}
	s.follow()
	for name, x := range map[string]struct {
		q    Query
		want int
	}{
		"all": {Query{}, 60}, "limit": {Query{Limit: 7}, 7}, "action": {Query{Action: "logs"}, 20},
		"actor": {Query{Actor: "p1@bank.example"}, 30}, "subject": {Query{Actor: "ada"}, 60}, "address": {Query{Actor: "192.0.2.7"}, 60}, "nobody": {Query{Actor: "eve"}, 0},
		"result": {Query{Result: audit.Denied}, 6}, "request": {Query{Request: "req_7"}, 1}, "object": {Query{Object: "Tenant t3"}, 12},
		"from": {Query{From: begun.Add(50 * time.Millisecond)}, 10}, "to": {Query{To: begun.Add(50 * time.Millisecond)}, 50},
		"both":       {Query{From: begun.Add(10 * time.Millisecond), To: begun.Add(20 * time.Millisecond)}, 10},
		"of nothing": {Query{Log: "tenant/nobody"}, 0},
	} {
		if x.q.Log == "" {
			x.q.Log = acme
		}
		var seqs []uint64
		if err := s.Search(t.Context(), x.q, func(l []byte) error {
			r, err := audit.ReadRecord(l)
			seqs = append(seqs, r.Seq)
			return err
		}); err != nil {
			t.Fatal(name, err)
		}
		for i := 1; i < len(seqs); i++ {
			if seqs[i] >= seqs[i-1] {
				t.Errorf("%s: %v is not newest first", name, seqs)
			}
		}
		if len(seqs) != x.want {
			t.Errorf("%s: %d records, want %d", name, len(seqs), x.want)
		}
	}
	stop := errors.New("stop")
	if err := s.Search(t.Context(), Query{Log: acme}, func([]byte) error { return stop }); !errors.Is(err, stop) {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Search(ctx, Query{Log: acme}, func([]byte) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if err := s.Search(t.Context(), Query{Log: "../x"}, func([]byte) error { return nil }); err == nil {
		t.Fatal("any name is a log")
	}
}

// TestTimesNeverGoBack: a proposer whose clock is wrong cannot reorder the trail.
func TestTimesNeverGoBack(t *testing.T) {
	c := newCluster()
	c.put(t, acme, 1)
	c.now = c.now.Add(-time.Hour)
	c.put(t, acme, 1)
	var at []int64
	s := newPlace(t, c).open(t)
	if err := s.Search(t.Context(), Query{Log: acme}, func(l []byte) error {
		r, err := audit.ReadRecord(l)
		at = append(at, r.At)
		return err
	}); err != nil || len(at) != 2 || at[0] < at[1] {
		t.Fatal(at, err)
	}
}

func TestLogNames(t *testing.T) {
	for tenant, want := range map[string]string{"acme": acme, "": "", "../x": "", "a/b": "", "Acme": "", strings.Repeat("a", 64): ""} {
		log, ok := LogName(tenant)
		if ok != (want != "") || ok && log != want {
			t.Errorf("%q: %s %v", tenant, log, ok)
		}
		if back, ok := TenantOf(log); ok != (want != "") || ok && string(back) != tenant {
			t.Errorf("%q: back to %q", tenant, back)
		}
	}
}
