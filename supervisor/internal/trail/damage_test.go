package trail

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bulkhead-ai/bulkhead/cluster/audit"
)

const acme = "tenant/acme"

// direct reads another store as a peer would.
type direct map[string]*Store

func (d direct) Nodes() []string {
	var out []string
	for n := range d {
		out = append(out, n)
	}
	return out
}

func (d direct) Fetch(_ context.Context, node, log string, from, to uint64, fn func([]byte) error) error {
	return d[node].read(log, from, to, func(l *line) error { return fn(l.raw) })
}

// nthLine changes one line of a segment; k counts from 0.
func nthLine(k int, change func([]byte) []byte) func([]byte) []byte {
	return func(raw []byte) []byte {
		lines := bytes.SplitAfter(raw, []byte("\n"))
		lines[k] = change(lines[k])
		return bytes.Join(lines, nil)
	}
}

// vandal is a way to damage the log of acme, of 60 records, on disk.
type vandal struct {
	name  string
	wrong func(t *testing.T, p *place, segments []string) (first uint64) // answers the first damaged record
	heals bool                                                           // every record is still there
}

func seqAt(t *testing.T, path string, k int) uint64 {
	t.Helper()
	lines, _, err := readSegment(acme, path)
	if err != nil || k >= len(lines) {
		t.Fatal(len(lines), err)
	}
	return lines[k].seq
}

func vandals() []vandal {
	return []vandal{
		{"flipped byte in a text", func(t *testing.T, p *place, s []string) uint64 {
			seq := seqAt(t, s[1], 2)
			edit(t, s[1], nthLine(2, func(l []byte) []byte { return bytes.Replace(l, []byte("ada"), []byte("eve"), 1) }))
			return seq
		}, false},
		{"flipped byte in the form", func(t *testing.T, p *place, s []string) uint64 {
			seq := seqAt(t, s[1], 0)
			edit(t, s[1], nthLine(0, func(l []byte) []byte { l[0] ^= 1; return l }))
			return seq
		}, false},
		{"first record changed", func(t *testing.T, p *place, s []string) uint64 {
			edit(t, s[0], nthLine(0, func(l []byte) []byte { return bytes.Replace(l, []byte("done"), []byte("fail"), 1) }))
			return 1
		}, false},
		{"last record changed", func(t *testing.T, p *place, s []string) uint64 {
			last := s[len(s)-1]
			lines, _, _ := readSegment(acme, last)
			edit(t, last, nthLine(len(lines)-1, func(l []byte) []byte { return bytes.Replace(l, []byte("ada"), []byte("eve"), 1) }))
			return 60
		}, false},
		{"record deleted", func(t *testing.T, p *place, s []string) uint64 {
			seq := seqAt(t, s[2], 1)
			edit(t, s[2], nthLine(1, func([]byte) []byte { return nil }))
			return seq
		}, false},
		{"two swapped", func(t *testing.T, p *place, s []string) uint64 {
			seq := seqAt(t, s[1], 1)
			edit(t, s[1], func(raw []byte) []byte {
				lines := bytes.SplitAfter(raw, []byte("\n"))
				lines[1], lines[2] = lines[2], lines[1]
				return bytes.Join(lines, nil)
			})
			return seq
		}, true},
		{"record twice", func(t *testing.T, p *place, s []string) uint64 {
			seq := seqAt(t, s[1], 2)
			edit(t, s[1], nthLine(1, func(l []byte) []byte { return append(bytes.Clone(l), l...) }))
			return seq
		}, true},
		{"segment truncated", func(t *testing.T, p *place, s []string) uint64 {
			seq := seqAt(t, s[1], 1)
			edit(t, s[1], func(raw []byte) []byte { return raw[:bytes.IndexByte(raw, '\n')+1] })
			return seq
		}, false},
		{"segment torn", func(t *testing.T, p *place, s []string) uint64 {
			seq := seqAt(t, s[1], 1)
			edit(t, s[1], func(raw []byte) []byte { return raw[:bytes.IndexByte(raw, '\n')+9] })
			return seq
		}, false},
		{"segment emptied", func(t *testing.T, p *place, s []string) uint64 {
			seq := seqAt(t, s[1], 0)
			edit(t, s[1], func([]byte) []byte { return nil })
			return seq
		}, false},
		{"segment deleted", func(t *testing.T, p *place, s []string) uint64 {
			seq := seqAt(t, s[1], 0)
			os.Remove(s[1])
			return seq
		}, false},
		{"first segment deleted", func(t *testing.T, p *place, s []string) uint64 { os.Remove(s[0]); return 1 }, false},
		{"folder deleted", func(t *testing.T, p *place, s []string) uint64 { os.RemoveAll(filepath.Dir(s[0])); return 1 }, false},
		{"segment of another log", func(t *testing.T, p *place, s []string) uint64 {
			seq := seqAt(t, s[0], 0)
			other, err := os.ReadFile(p.segments(t, "tenant/globex")[0])
			if err != nil {
				t.Fatal(err)
			}
			edit(t, s[0], func([]byte) []byte { return other })
			return seq
		}, false},
		{"segment under another's name", func(t *testing.T, p *place, s []string) uint64 {
			seq := seqAt(t, s[2], 0)
			raw, _ := os.ReadFile(s[1])
			edit(t, s[2], func([]byte) []byte { return raw })
			return seq
		}, false},
		{"rolled back folder", func(t *testing.T, p *place, s []string) uint64 {
			seq := seqAt(t, s[2], 0)
			for _, f := range s[2:] {
				os.Remove(f)
			}
			return seq
		}, false},
		{"zeros", func(t *testing.T, p *place, s []string) uint64 {
			seq := seqAt(t, s[1], 0)
			edit(t, s[1], func(raw []byte) []byte { return make([]byte, len(raw)) })
			return seq
		}, false},
		{"several places", func(t *testing.T, p *place, s []string) uint64 {
			seq := seqAt(t, s[0], 1)
			edit(t, s[0], nthLine(1, func(l []byte) []byte { return bytes.Replace(l, []byte("ada"), []byte("eve"), 1) }))
			edit(t, s[2], nthLine(0, func([]byte) []byte { return nil }))
			os.Remove(s[3])
			return seq
		}, false},
	}
}

// damaged is a place whose log of acme is damaged, and beyond what the state
// remembers.
func damaged(t *testing.T, v vandal) (p *place, s *Store, first uint64) {
	c := newCluster()
	p = newPlace(t, c)
	c.put(t, acme, 60)
	c.put(t, "tenant/globex", 60)
	s = p.open(t)
	p.anchor(t, s)
	c.forget()
	mustHold(t, s, acme, 60)
	return p, s, v.wrong(t, p, p.segments(t, acme))
}

// TestDamageIsFoundAndNamed: on a node that is alone nothing repairs it. Old
// damage stops nobody from recording, and is told once.
func TestDamageIsFoundAndNamed(t *testing.T) {
	for _, v := range vandals() {
		t.Run(v.name, func(t *testing.T) {
			p, s, first := damaged(t, v)
			want := func(s *Store) {
				t.Helper()
				r := verify(t, s, acme)
				if r.OK || r.Root != "" || len(r.Findings) == 0 || r.Findings[0].From != first {
					t.Fatalf("want damage from record %d on, got %+v", first, r)
				}
			}
			want(s)
			d := new(told)
			for range 2 {
				s.mend(t.Context(), d, true)
			}
			if v.heals { // the records are only in a wrong place
				if d.actions() != ActionRepaired {
					t.Fatalf("told: %s", d.actions())
				}
				mustHold(t, s, acme, 60)
				return
			}
			if s.Damaged() != 1 || !strings.HasPrefix(d.actions(), ActionDamaged) || strings.Contains(d.actions(), ActionRepaired) || len(d.events) > 3 {
				t.Fatalf("told: %s", d.actions())
			}
			want(s)
			s = p.open(t) // and after a start
			want(s)
			p.cluster.put(t, acme, 3)
			if err := s.follow(); err != nil || s.Ready() != nil {
				t.Fatal(err, s.Ready())
			}
			want(s)
			var got int
			if err := s.Search(t.Context(), Query{Log: acme, Limit: 3}, func([]byte) error { got++; return nil }); err != nil || got != 3 {
				t.Fatalf("%d new records, %v", got, err)
			}
			if err := s.Export(t.Context(), acme, io.Discard); err == nil {
				t.Fatal("a damaged log was exported")
			}
		})
	}
}

// TestDamageIsRepairedFromANode: the same damage, beside a whole copy.
func TestDamageIsRepairedFromANode(t *testing.T) {
	for _, v := range vandals() {
		for _, restart := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, restart %v", v.name, restart), func(t *testing.T) {
				c := newCluster()
				p := newPlace(t, c)
				q := p.beside(t)
				c.put(t, acme, 60)
				c.put(t, "tenant/globex", 60)
				s, other := p.open(t), q.open(t)
				p.anchor(t, s)
				c.forget()
				s.cfg.Peers = direct{"n2": other}
				p.peers = s.cfg.Peers
				v.wrong(t, p, p.segments(t, acme))
				if restart {
					s = p.open(t)
				} else {
					c.put(t, acme, 2) // meanwhile
					s.follow()
					other.follow()
				}
				d := new(told)
				s.mend(t.Context(), d, true)
				log, _ := c.View().AuditLog(acme)
				mustHold(t, s, acme, log.Size)
				if s.Damaged() != 0 {
					t.Fatal("it counts as damaged")
				}
				if made := v.name == "folder deleted" && restart; !made && !strings.Contains(d.actions(), ActionRepaired) {
					t.Fatalf("told: %q", d.actions())
				}
				c.put(t, acme, 5)
				s.follow()
				mustHold(t, s, acme, log.Size+5)
				mustHold(t, p.open(t), acme, log.Size+5)
			})
		}
	}
}

// TestRecentDamageIsRepairedFromTheState on a node that is alone.
func TestRecentDamageIsRepairedFromTheState(t *testing.T) {
	for _, v := range vandals() {
		t.Run(v.name, func(t *testing.T) {
			c := newCluster()
			p := newPlace(t, c)
			c.put(t, acme, 60)
			c.put(t, "tenant/globex", 60)
			s := p.open(t)
			v.wrong(t, p, p.segments(t, acme))
			s.mend(t.Context(), new(told), true)
			mustHold(t, s, acme, 60)
		})
	}
}

// TestWhatWasDamagedIsKept: evidence is set aside as it was.
func TestWhatWasDamagedIsKept(t *testing.T) {
	c := newCluster()
	p := newPlace(t, c)
	c.put(t, acme, 60)
	s := p.open(t)
	path := p.segments(t, acme)[1]
	edit(t, path, nthLine(2, func(l []byte) []byte { return bytes.Replace(l, []byte("ada"), []byte("eve"), 1) }))
	wrong, _ := os.ReadFile(path)
	s.mend(t.Context(), new(told), true)
	r := mustHold(t, s, acme, 60)
	aside := p.aside(t, acme)
	if len(aside) != 1 || r.SetAside != 1 {
		t.Fatalf("aside: %v, %+v", aside, r)
	}
	if got, err := os.ReadFile(aside[0]); err != nil || !bytes.Equal(got, wrong) {
		t.Fatalf("%v %q", err, got)
	}
}

// liar sends what it likes.
type liar struct {
	lines [][]byte
	err   error
}

func (l liar) Nodes() []string { return []string{"n2"} }

func (l liar) Fetch(_ context.Context, _, _ string, _, _ uint64, fn func([]byte) error) error {
	for _, line := range l.lines {
		if err := fn(line); err != nil {
			return err
		}
	}
	return l.err
}

func TestForgedRecordsAreNotKept(t *testing.T) {
	p, s, _ := damaged(t, vandals()[len(vandals())-1])
	forged := audit.Log{Name: acme}
	var l liar
	for range 60 {
		var line []byte
		var err error
		if forged, line, err = forged.Append(time.Now().UnixMilli(), event("create-key")); err != nil {
			t.Fatal(err)
		}
		l.lines = append(l.lines, line)
	}
	l.lines = append(l.lines, []byte("{"), nil, bytes.Repeat([]byte("x"), audit.MaxLine))
	before := p.segments(t, acme)
	s.cfg.Peers = l
	s.mend(t.Context(), new(told), true)
	if r := verify(t, s, acme); r.OK {
		t.Fatalf("got %+v", r)
	}
	if after := p.segments(t, acme); fmt.Sprint(before) != fmt.Sprint(after) {
		t.Fatalf("segments %v, then %v", before, after)
	}
	s.cfg.Peers = liar{err: io.ErrUnexpectedEOF}
	s.mend(t.Context(), new(told), true)
	if verify(t, s, acme).OK {
		t.Fatal("repaired from nothing")
	}
}

func TestANewNodeCopiesEverything(t *testing.T) {
	c := newCluster()
	p := newPlace(t, c)
	p.segment = 64 << 10
	s := p.open(t)
	for range 2 {
		c.put(t, acme, 2500)
		s.follow()
	}
	c.put(t, audit.Platform, 10)
	s.follow()
	c.forget()
	q := p.beside(t)
	q.peers = direct{"n1": s}
	fresh := q.open(t)
	d := new(told)
	fresh.mend(t.Context(), d, true)
	mustHold(t, fresh, acme, 5000)
	mustHold(t, fresh, audit.Platform, 10)
	if len(d.events) != 0 {
		t.Fatalf("copying is no damage: %s", d.actions())
	}
}

func TestCheckpointsHold(t *testing.T) {
	c := newCluster()
	p := newPlace(t, c)
	c.put(t, acme, 10)
	s := p.open(t)
	p.anchor(t, s)
	c.put(t, acme, 10)
	s.follow()
	p.anchor(t, s)
	c.put(t, acme, 1)
	s.follow()
	if r := mustHold(t, s, acme, 21); r.Signed != 20 || r.Checkpoints < 2 {
		t.Fatalf("got %+v", r)
	}
	path := p.file(acme, checkpointsFile)
	good, _ := os.ReadFile(path)
	other := newPlace(t, newCluster())
	other.cluster.put(t, acme, 15)
	other.key, other.signer = p.key, p.signer
	o := other.open(t)
	other.anchor(t, o)
	forked, _ := os.ReadFile(other.file(acme, checkpointsFile))
	strange := newPlace(t, newCluster())
	strange.cluster.put(t, acme, 15)
	strange.anchor(t, strange.open(t))
	foreign, _ := os.ReadFile(strange.file(acme, checkpointsFile))
	other.cluster.put(t, acme, 50)
	o.follow()
	other.anchor(t, o)
	ahead, _ := os.ReadFile(other.file(acme, checkpointsFile))
	globex := newPlace(t, newCluster())
	globex.key, globex.signer = p.key, p.signer
	globex.cluster.put(t, "tenant/globex", 5)
	globex.anchor(t, globex.open(t))
	moved, _ := os.ReadFile(globex.file("tenant/globex", checkpointsFile))
	for name, bad := range map[string][]byte{
		"another history": append(bytes.Clone(good), forked...), "another key": append(bytes.Clone(good), foreign...),
		"of a longer log": append(bytes.Clone(good), ahead...), "another log": append(bytes.Clone(good), moved...),
		"flipped": bytes.Replace(good, []byte(`\n10\n`), []byte(`\n11\n`), 1), "garbage": append(bytes.Clone(good), "{}\n{\n"...),
	} {
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if r := verify(t, s, acme); r.OK || len(r.Findings) == 0 {
			t.Errorf("%s: %+v", name, r)
		}
	}
	for cut := 0; cut < len(good); cut += 11 { // a crash in the middle of a line
		os.WriteFile(path, good[:cut], 0o600)
		again := p.open(t)
		again.keepCheckpoints()
		if r := mustHold(t, again, acme, 21); r.Signed != 20 {
			t.Fatalf("cut at %d: %+v", cut, r)
		}
	}
}
