package receipt

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"testing"

	"golang.org/x/mod/sumdb/tlog"
)

// log stores a tree as tlog does.
type log []tlog.Hash

func (l log) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, x := range indexes {
		out[i] = l[x]
	}
	return out, nil
}

func TestFrontierIsTheTreeOfTlog(t *testing.T) {
	var f Frontier
	var l log
	for n := int64(0); n < 300; n++ {
		want, err := tlog.TreeHash(n, l)
		if err != nil {
			t.Fatal(err)
		}
		if got := f.Root(); got != want || f.Size() != uint64(n) {
			t.Fatalf("size %d: root %v, want %v", n, got, want)
		}
		raw, _ := f.MarshalBinary()
		var again Frontier
		if err := again.UnmarshalBinary(raw); err != nil || again.Root() != want || again.Size() != uint64(n) {
			t.Fatalf("size %d: %v", n, err)
		}
		line := fmt.Appendf(nil, "receipt %d", n)
		hashes, err := tlog.StoredHashes(n, line, l)
		if err != nil {
			t.Fatal(err)
		}
		l = append(l, hashes...)
		before := f.Clone()
		f.Append(LeafHash(line))
		if before.Root() != want {
			t.Fatalf("size %d: a clone changed", n)
		}
		proof, err := tlog.ProveRecord(n+1, n/2, l)
		if err != nil {
			t.Fatal(err)
		}
		if err := tlog.CheckRecord(proof, n+1, f.Root(), n/2, LeafHash(fmt.Appendf(nil, "receipt %d", n/2))); err != nil {
			t.Fatalf("size %d: %v", n, err)
		}
	}
}

func TestFrontierRefusesOtherBytes(t *testing.T) {
	var f Frontier
	for i := range 5 {
		f.Append(LeafHash([]byte{byte(i)}))
	}
	raw, _ := f.MarshalBinary()
	for name, bad := range map[string][]byte{
		"empty": nil, "short": raw[:8], "version": append([]byte{2}, raw[1:]...), "cut": raw[:len(raw)-1],
		"long": append(bytes.Clone(raw), 0), "huge": append([]byte{1}, bytes.Repeat([]byte{0xff}, 8)...),
	} {
		g := f.Clone()
		if err := g.UnmarshalBinary(bad); !errors.Is(err, ErrFrontier) || g.Root() != f.Root() {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// testKey is a fixed signing key.
func testKey() ed25519.PrivateKey { return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, 32)) }

func testBatch(f *Frontier, from uint64, n int) *Batch {
	b := &Batch{Tenant: "acme", Epoch: 3, From: from, To: from + 2*uint64(n)}
	for i := range n {
		r := sample()
		r.Seq = from + 2*uint64(i)
		line := r.AppendJSON(nil)
		b.Leaves = append(b.Leaves, line)
		f.Append(LeafHash(line))
	}
	b.TreeSize, b.Root = f.Size(), f.Root()
	return b
}

func TestBatchRoundTrip(t *testing.T) {
	key := testKey()
	public := key.Public().(ed25519.PublicKey)
	var worker, ledger Frontier
	from := uint64(1)
	for _, n := range []int{0, 1, 7, 500, 0, 3} {
		b := testBatch(&worker, from, n)
		raw, err := SealBatch(b, key)
		if err != nil {
			t.Fatal(err)
		}
		if len(raw) > BatchOverhead+n*4+len(bytes.Join(b.Leaves, nil)) {
			t.Fatalf("%d receipts: %d bytes", n, len(raw))
		}
		got, err := OpenBatch(raw, public)
		if err != nil {
			t.Fatal(err)
		}
		if got.Tenant != b.Tenant || got.Epoch != b.Epoch || got.From != b.From || got.To != b.To || got.Root != b.Root || len(got.Receipts) != n {
			t.Fatalf("got %+v", got)
		}
		for i, r := range got.Receipts {
			if !bytes.Equal(got.Leaves[i], r.AppendJSON(nil)) || !bytes.Equal(got.Leaves[i], b.Leaves[i]) {
				t.Fatalf("receipt %d differs", i)
			}
		}
		clear(raw) // the result must not share memory
		if !got.Extends(&ledger) || ledger.Root() != b.Root {
			t.Fatal("does not extend the ledger")
		}
		if n > 0 && got.Extends(&ledger) {
			t.Fatal("extends the ledger twice")
		}
		from = b.To + 1
	}
}

func TestBatchIsWhatWasSigned(t *testing.T) {
	key := testKey()
	var f Frontier
	raw, err := SealBatch(testBatch(&f, 1, 3), key)
	if err != nil {
		t.Fatal(err)
	}
	public := key.Public().(ed25519.PublicKey)
	for i := range raw {
		for _, bit := range []byte{1, 0x80} {
			bad := bytes.Clone(raw)
			bad[i] ^= bit
			if _, err := OpenBatch(bad, public); !errors.Is(err, ErrBatch) {
				t.Fatalf("byte %d changed: %v", i, err)
			}
		}
		if _, err := OpenBatch(raw[:i], public); !errors.Is(err, ErrBatch) {
			t.Fatalf("cut at %d: %v", i, err)
		}
	}
	other := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{8}, 32)).Public().(ed25519.PublicKey)
	for name, try := range map[string]func() error{
		"trailing":  func() error { _, err := OpenBatch(append(bytes.Clone(raw), 0), public); return err },
		"other key": func() error { _, err := OpenBatch(raw, other); return err },
		"no key":    func() error { _, err := OpenBatch(raw, nil); return err },
		"too long":  func() error { _, err := OpenBatch(make([]byte, MaxBatch+1), public); return err },
	} {
		if err := try(); !errors.Is(err, ErrBatch) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestOpenBatchChecksTheSigner: the key holder may be hostile too.
func TestOpenBatchChecksTheSigner(t *testing.T) {
	key := testKey()
	line := func(change func(*Receipt)) []byte {
		r := sample()
		change(&r)
		return r.AppendJSON(nil)
	}
	for name, change := range map[string]func(*Batch){
		"tenant of a receipt": func(b *Batch) { b.Leaves[1] = line(func(r *Receipt) { r.Seq, r.Tenant = 3, "globex" }) },
		"newer epoch":         func(b *Batch) { b.Leaves[1] = line(func(r *Receipt) { r.Seq, r.Epoch = 3, 4 }) },
		"record twice":        func(b *Batch) { b.Leaves[1] = b.Leaves[0] },
		"record order":        func(b *Batch) { b.Leaves[0], b.Leaves[1] = b.Leaves[1], b.Leaves[0] },
		"record before":       func(b *Batch) { b.From = 2 },
		"record behind":       func(b *Batch) { b.To = 4 },
		"not canonical":       func(b *Batch) { b.Leaves[0] = append(b.Leaves[0], ' ') },
		"not valid":           func(b *Batch) { b.Leaves[0] = line(func(r *Receipt) { r.Seq, r.Cost = 1, -1 }) },
	} {
		var f Frontier
		b := testBatch(&f, 1, 3)
		change(b)
		raw, err := SealBatch(b, key)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if _, err := OpenBatch(raw, key.Public().(ed25519.PublicKey)); !errors.Is(err, ErrBatch) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, change := range map[string]func(*Batch){
		"tenant": func(b *Batch) { b.Tenant = "" }, "epoch": func(b *Batch) { b.Epoch = 0 }, "from": func(b *Batch) { b.From = 0 },
		"range": func(b *Batch) { b.To = b.From - 1 }, "tree": func(b *Batch) { b.TreeSize = 2 },
		"more receipts than records": func(b *Batch) { b.To = b.From + 1 },
		"size":                       func(b *Batch) { b.Leaves[0] = make([]byte, MaxBatch) },
		"count":                      func(b *Batch) { b.To = 1 << 40; b.TreeSize = 1 << 40; b.Leaves = make([][]byte, MaxReceipts+1) },
	} {
		var f Frontier
		b := testBatch(&f, 1, 3)
		change(b)
		if _, err := SealBatch(b, key); !errors.Is(err, ErrBatch) {
			t.Errorf("seal with bad %s: %v", name, err)
		}
	}
}

func TestOlderEpochMayRide(t *testing.T) {
	key := testKey()
	r := sample()
	r.Seq, r.Epoch = 5, 1
	b := &Batch{Tenant: "acme", Epoch: 3, From: 5, To: 5, Leaves: [][]byte{r.AppendJSON(nil)}, TreeSize: 1}
	raw, err := SealBatch(b, key)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := OpenBatch(raw, key.Public().(ed25519.PublicKey)); err != nil {
		t.Fatal(err)
	}
}

func FuzzOpenBatch(f *testing.F) {
	key := testKey()
	public := key.Public().(ed25519.PublicKey)
	for _, n := range []int{0, 1, 3} {
		var tree Frontier
		raw, err := SealBatch(testBatch(&tree, 1, n), key)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		b, err := OpenBatch(raw, public)
		if err != nil {
			return
		}
		again, err := SealBatch(b, key)
		if err != nil || !bytes.Equal(again, raw) {
			t.Fatalf("opens, but seals to other bytes: %v", err)
		}
	})
}

func BenchmarkOpenBatch(b *testing.B) {
	key := testKey()
	public := key.Public().(ed25519.PublicKey)
	var tree Frontier
	raw, err := SealBatch(testBatch(&tree, 1, 500), key)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := OpenBatch(raw, public); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/500, "µs/receipt")
}
