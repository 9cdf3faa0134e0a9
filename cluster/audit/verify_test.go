package audit

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/worker/receipt"
	"golang.org/x/mod/sumdb/note"
)

func event(i int) Event {
	return Event{
		Op: fmt.Sprint("op-", i), Phase: Single, Action: "create-key", Tenant: "acme", Result: Done, Node: "n1",
		Actor: Actor{Subject: "s", Method: "token"}, After: json.RawMessage(fmt.Sprintf(`{"n":%d,"text":"<a&b>"}`, i)),
	}
}

// written is a log of n records with the root after each.
func written(t testing.TB, name string, n int) (log Log, lines [][]byte, roots []receipt.Hash) {
	t.Helper()
	log = Log{Name: name}
	for i := range n {
		next, line, err := log.Append(int64(1000+i/2), event(i))
		if err != nil {
			t.Fatal(err)
		}
		root, err := next.Root()
		if err != nil {
			t.Fatal(err)
		}
		log, lines, roots = next, append(lines, line), append(roots, root)
	}
	return log, lines, roots
}

// damage feeds the lines to a verifier and answers what it found, 0 for nothing.
func damage(t testing.TB, name string, lines [][]byte, points map[uint64]receipt.Hash) uint64 {
	t.Helper()
	v := NewVerifier(Log{Name: name})
	var err error
	for size, root := range points {
		if err = v.Expect(size, root); err != nil {
			t.Fatal(err)
		}
	}
	for _, line := range lines {
		if err = v.Add(line); err != nil {
			break
		}
	}
	end := v.Finish()
	if err != nil && end != err {
		t.Errorf("found %v, and at the end %v", err, end)
	}
	if end == nil {
		return 0
	}
	var d *Damage
	if !errors.As(end, &d) || d.Log != name {
		t.Fatalf("%v, want a Damage of %s", end, name)
	}
	return d.Seq
}

func TestLogIsWhole(t *testing.T) {
	log, lines, roots := written(t, "platform", 20)
	points := map[uint64]receipt.Hash{}
	for i, r := range roots {
		points[uint64(i+1)] = r
	}
	if seq := damage(t, "platform", lines, points); seq != 0 {
		t.Fatalf("damage at record %d of a whole log", seq)
	}
	half, _, _ := written(t, "platform", 10)
	v := NewVerifier(half)
	if err := v.Expect(10, roots[9]); err != nil {
		t.Error(err)
	}
	for _, line := range lines[10:] {
		if err := v.Add(line); err != nil {
			t.Fatal(err)
		}
	}
	if err := v.Finish(); err != nil || v.Log().Size != log.Size || !bytes.Equal(v.Log().Head, log.Head) || !bytes.Equal(v.Log().Frontier, log.Frontier) {
		t.Errorf("%v; it ends with %+v, want %+v", err, v.Log(), log)
	}
}

// Every byte of every line, one at a time: the line is named.
func TestFlippedByteIsNamed(t *testing.T) {
	_, lines, roots := written(t, "tenant/acme", 5)
	points := map[uint64]receipt.Hash{5: roots[4]}
	for i := range lines {
		for at := range lines[i] {
			spoilt := slices.Clone(lines)
			spoilt[i] = bytes.Clone(lines[i])
			spoilt[i][at] ^= 1
			got := damage(t, "tenant/acme", spoilt, points)
			// Nothing comes after the last record's own link.
			if want := uint64(i + 1); got != want && !(i == 4 && got == 4) {
				t.Fatalf("byte %d of record %d: damage at %d\n%s", at, want, got, spoilt[i])
			}
		}
	}
}

func TestDamageIsNamed(t *testing.T) {
	const n = 9
	_, lines, roots := written(t, "tenant/acme", n)
	_, other, _ := written(t, "tenant/globex", n)
	renamed := func(l []byte) []byte { return bytes.Replace(l, []byte("tenant/globex"), []byte("tenant/acme"), 1) }
	rewritten := func(at int) (out [][]byte) {
		log := Log{Name: "tenant/acme"}
		for i := range n {
			e := event(i)
			if i == at-1 {
				e.Reason = "another one"
			}
			next, line, err := log.Append(int64(1000+i/2), e)
			if err != nil {
				t.Fatal(err)
			}
			log, out = next, append(out, line)
		}
		return out
	}
	tests := []struct {
		name   string
		lines  [][]byte
		points map[uint64]receipt.Hash
		want   uint64
	}{
		{"deleted first", lines[1:], nil, 1},
		{"deleted in the middle", slices.Concat(lines[:3], lines[4:]), nil, 4},
		{"swapped", slices.Concat(lines[:3], [][]byte{lines[4], lines[3]}, lines[5:]), nil, 4},
		{"twice", slices.Concat(lines[:3], lines[2:]), nil, 4},
		{"cut off", lines[:6], map[uint64]receipt.Hash{n: roots[n-1]}, 7},
		{"cut off, checkpoint of the rest holds", lines[:6], map[uint64]receipt.Hash{6: roots[5]}, 0},
		{"empty", nil, map[uint64]receipt.Hash{n: roots[n-1]}, 1},
		{"segment of another log", slices.Concat(lines[:3], other[3:6], lines[6:]), nil, 4},
		{"segment of another log, renamed", slices.Concat(lines[:3], [][]byte{renamed(other[3]), renamed(other[4]), renamed(other[5])}, lines[6:]), nil, 4},
		// Without a checkpoint either of the first two may be the one that was changed.
		{"all of another log, renamed", [][]byte{renamed(other[0]), renamed(other[1]), renamed(other[2])}, nil, 2},
		{"rewritten to its end", rewritten(4), map[uint64]receipt.Hash{3: roots[2], n: roots[n-1]}, n},
		{"rewritten between checkpoints", rewritten(4), map[uint64]receipt.Hash{3: roots[2], 4: roots[3], n: roots[n-1]}, 4},
		{"tail of a forked log", slices.Concat(lines[:5], rewritten(2)[5:]), map[uint64]receipt.Hash{5: roots[4]}, 6},
		{"damaged twice", slices.Concat(lines[:3], [][]byte{bytes.Replace(lines[3], []byte("op-3"), []byte("op-9"), 1), lines[4], []byte("x")}), nil, 4},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := damage(t, "tenant/acme", tt.lines, tt.points); got != tt.want {
				t.Errorf("damage at %d, want %d", got, tt.want)
			}
		})
	}
}

func TestTimeNeverGoesBack(t *testing.T) {
	log, line, err := Log{Name: "platform"}.Append(2000, event(0))
	if err != nil {
		t.Fatal(err)
	}
	second, whole, err := log.Append(1, event(1))
	if err != nil || second.At != 2000 {
		t.Fatalf("%+v, %v", second, err)
	}
	if got := damage(t, "platform", [][]byte{line, whole}, nil); got != 0 {
		t.Errorf("damage at %d", got)
	}
	early := Record{Log: "platform", Seq: 2, At: 1, Prev: hex.EncodeToString(log.Head), Event: event(1)}
	raw, err := json.Marshal(early)
	if err != nil {
		t.Fatal(err)
	}
	if got := damage(t, "platform", [][]byte{line, raw}, nil); got != 2 {
		t.Errorf("damage at %d, want 2", got)
	}
}

func TestForkedCheckpoints(t *testing.T) {
	_, lines, roots := written(t, "platform", 3)
	v := NewVerifier(Log{Name: "platform"})
	if err := v.Expect(2, roots[1]); err != nil {
		t.Fatal(err)
	}
	var d *Damage
	if err := v.Expect(2, roots[0]); !errors.As(err, &d) || d.Seq != 2 {
		t.Errorf("two roots of one size: %v", err)
	}
	v = NewVerifier(Log{Name: "platform"})
	for _, line := range lines {
		if err := v.Add(line); err != nil {
			t.Fatal(err)
		}
	}
	if err := v.Expect(2, roots[1]); err == nil || errors.As(err, &d) {
		t.Errorf("a checkpoint that came too late: %v", err)
	}
	if err := v.Expect(3, roots[1]); !errors.As(err, &d) || d.Seq != 3 {
		t.Errorf("another root of the present size: %v", err)
	}
}

func TestReadRecordIsStrict(t *testing.T) {
	_, lines, _ := written(t, "tenant/acme", 2)
	r, err := ReadRecord(lines[1])
	if err != nil || r.Seq != 2 || r.Tenant != bulkhead.TenantID("acme") || r.Log != "tenant/acme" || r.Op != "op-1" {
		t.Fatalf("%+v, %v", r, err)
	}
	edit := func(old, with string) []byte {
		out := bytes.Replace(lines[1], []byte(old), []byte(with), 1)
		if bytes.Equal(out, lines[1]) {
			t.Fatalf("no %q in %s", old, lines[1])
		}
		return out
	}
	for name, line := range map[string][]byte{
		"empty": nil, "newline": append(bytes.Clone(lines[1]), '\n'), "two": append(bytes.Clone(lines[1]), lines[1]...),
		"space":                 edit(`,"seq"`, `, "seq"`),
		"unknown field":         edit(`"seq"`, `"sequel":1,"seq"`),
		"field twice":           edit(`"seq":2`, `"seq":1,"seq":2`),
		"other case":            edit(`"seq"`, `"Seq"`),
		"escaped":               edit(`create-key`, `create\u002dkey`),
		"no link":               edit(r.Prev, ""),
		"short link":            edit(r.Prev, "00"),
		"link of other letters": edit(r.Prev, strings.Repeat("zz", 32)),
		"sequence 0":            edit(`"seq":2`, `"seq":0`),
		"first with a link":     edit(`"seq":2`, `"seq":1`),
		"too long":              edit(`"op-1"`, `"`+strings.Repeat("o", MaxLine)+`"`),
	} {
		if _, err := ReadRecord(line); !errors.Is(err, ErrRecord) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestTooLongEventIsRefused(t *testing.T) {
	e := event(0)
	e.After = json.RawMessage(`"` + strings.Repeat("x", MaxLine) + `"`)
	log := Log{Name: "platform"}
	if next, line, err := log.Append(1, e); err == nil || line != nil || next.Size != 0 {
		t.Errorf("%d bytes, %+v, %v", len(line), next, err)
	}
}

func keys(t testing.TB, name string) (note.Signer, note.Verifier) {
	t.Helper()
	skey, vkey, err := note.GenerateKey(rand.Reader, name)
	if err != nil {
		t.Fatal(err)
	}
	s, err := note.NewSigner(skey)
	if err != nil {
		t.Fatal(err)
	}
	v, err := note.NewVerifier(vkey)
	if err != nil {
		t.Fatal(err)
	}
	return s, v
}

func TestCheckpoint(t *testing.T) {
	s, v := keys(t, "c1.example")
	_, stranger := keys(t, "c1.example")
	_, _, roots := written(t, "tenant/acme", 3)
	origin := Origin("c1", TenantLog("acme"))
	raw, err := SignCheckpoint(s, origin, 3, roots[2])
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.HasPrefix(raw, []byte("c1/audit/tenant/acme\n3\n"+roots[2].String()+"\n\n\u2014 c1.example ")) {
		t.Errorf("not the public format:\n%s", raw)
	}
	want := Checkpoint{Origin: origin, Size: 3, Root: roots[2]}
	if got, err := OpenCheckpoint(raw, v); err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := OpenCheckpoint(raw, stranger); !errors.Is(err, ErrCheckpoint) {
		t.Errorf("signed by somebody else: %v", err)
	}
	for at := range raw {
		spoilt := bytes.Clone(raw)
		spoilt[at] ^= 1
		if got, err := OpenCheckpoint(spoilt, v); err == nil && got != want {
			t.Errorf("byte %d: %+v", at, got)
		}
	}
	for _, text := range []string{
		"c\n3\n", "c\n03\n" + roots[2].String() + "\n", "c\n3\n" + roots[2].String() + "\nmore\n", "\n3\n" + roots[2].String() + "\n",
		"c\n-1\n" + roots[2].String() + "\n", "c\n3\nAAAA\n", "c\n9223372036854775807\n" + roots[2].String() + "\n",
	} {
		signed, err := note.Sign(&note.Note{Text: text}, s)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := OpenCheckpoint(signed, v); !errors.Is(err, ErrCheckpoint) {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
	}
	if _, err := SignCheckpoint(s, "a\nb", 1, roots[0]); err == nil {
		t.Error("an origin of two lines was signed")
	}
}

// Whatever bytes come, a line is refused or says one thing.
func FuzzReadRecord(f *testing.F) {
	_, lines, _ := written(f, "platform", 2)
	f.Add(lines[0])
	f.Add(lines[1])
	f.Fuzz(func(t *testing.T, line []byte) {
		r, err := ReadRecord(line)
		if err != nil {
			return
		}
		again, err := json.Marshal(r)
		if err != nil || !bytes.Equal(again, line) {
			t.Errorf("%s became %s, %v", line, again, err)
		}
		_ = NewVerifier(Log{Name: r.Log}).Add(line)
	})
}
