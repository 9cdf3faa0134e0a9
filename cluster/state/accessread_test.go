package state

import (
	"bytes"
	"strings"
	"testing"

	"github.com/bulkhead-ai/bulkhead/cluster/audit"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
)

// What the commands rest on is checked, whatever the checksums say.
func TestRestoreRefusesImpossibleAccess(t *testing.T) {
	base := *full(t).st.View()
	if err := New().Restore(bytes.NewReader(bytesOf(t, &base))); err != nil {
		t.Fatal(err)
	}
	log := func(v *View, edit func(*audit.Log)) {
		l := *must(v.logs.get(audit.Platform))
		edit(&l)
		v.logs = v.logs.put(audit.Platform, &l)
	}
	plan := func(v *View, edit func(*erasure)) {
		e, _ := v.lastErasure("left")
		c := *e
		edit(&c)
		v.erasures = v.erasures.put(erasureKey("left", e.Index), &c)
	}
	for name, edit := range map[string]func(*View){
		"log without its tree": func(v *View) { log(v, func(l *audit.Log) { l.Size = 2 }) },
		"log of the future":    func(v *View) { log(v, func(l *audit.Log) { l.At = v.clock + 1 }) },
		"log without lines":    func(v *View) { v.trail = trail{} },
		"lines without a log":  func(v *View) { v.logs, v.anchors = tree[*audit.Log]{}, tree[*command.Anchor]{} },
		"gap in the lines":     func(v *View) { v.trail = v.trail.add(&AuditLine{N: 3, Log: audit.Platform, Seq: 1, Line: []byte("x")}) },
		"checkpoint ahead": func(v *View) {
			v.anchors = v.anchors.put(audit.Platform, &command.Anchor{Log: audit.Platform, Size: 9, Note: []byte("n")})
		},
		"use of no key":           func(v *View) { v.uses = v.uses.put("k9", &keyUse{Key: "k9"}) },
		"hold on nobody":          func(v *View) { v.holds = v.holds.put("nobody", &hold{Tenant: "nobody", Reason: "r", By: "b"}) },
		"hold on a tombstone":     func(v *View) { v.holds = v.holds.put("gone", &hold{Tenant: "gone", Reason: "r", By: "b"}) },
		"plan without its tenant": func(v *View) { plan(v, func(e *erasure) { e.Step = command.StepSnapshots }) },
		"plan that is finished":   func(v *View) { plan(v, func(e *erasure) { e.Step = command.StepDone }) },
		"plan at no step":         func(v *View) { plan(v, func(e *erasure) { e.Step = "later" }) },
		"plan of the future":      func(v *View) { plan(v, func(e *erasure) { e.Index = v.index + 1 }) },
		"plan of nobody": func(v *View) {
			v.erasures = v.erasures.put("nobody\x00"+indexKey(1), &erasure{Index: 1, Erasure: command.Erasure{
				ID: "e", Tenant: "nobody", Reason: "r", By: "b", Step: command.StepDone,
			}})
		},
		"living key without a hash": func(v *View) {
			k := *must(v.keys.get("k1"))
			k.Hash, k.RevokedAt = nil, 0
			v.keys = v.keys.put("k1", &k)
		},
		"tombstone with a share": func(v *View) {
			rec := *must(v.tenants.get("gone"))
			rec.ShareID = make([]byte, 32)
			v.tenants = v.tenants.put("gone", &rec)
		},
		"bad grant": func(v *View) {
			v.grants = v.grants.put(grantKey("acme", "g1"), &command.AccessGrant{ID: "g1", Tenant: "acme"})
		},
		"bad wrap": func(v *View) { v.wraps = v.wraps.put("w1", &command.CreateWrap{ID: "w1"}) },
	} {
		v := base
		edit(&v)
		err := New().Restore(bytes.NewReader(bytesOf(t, &v)))
		if err == nil || !strings.Contains(err.Error(), ErrSnapshot.Error()) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func bytesOf(t *testing.T, v *View) []byte {
	t.Helper()
	var b bytes.Buffer
	if _, err := v.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// A line of the audit trail in a snapshot is read or refused.
func FuzzParseLine(f *testing.F) {
	f.Add(appendLine(nil, &AuditLine{N: 7, Log: "platform", Seq: 3, Line: []byte("{}")}))
	f.Fuzz(func(t *testing.T, raw []byte) {
		l, err := parseLine(raw)
		if err != nil {
			return
		}
		again, err := parseLine(appendLine(nil, l))
		if err != nil || again.N != l.N || again.Seq != l.Seq || again.Log != l.Log || !bytes.Equal(again.Line, l.Line) {
			t.Errorf("%+v became %+v, %v", l, again, err)
		}
	})
}
