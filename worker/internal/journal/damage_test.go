package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/bulkhead-ai/bulkhead/worker/sealed"
)

// image is the content of a journal's directory.
type image map[string][]byte

func readImage(t testing.TB, dir string) image {
	t.Helper()
	im := image{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			im[d.Name()], err = os.ReadFile(path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return im
}

func (im image) write(t testing.TB, dir string) {
	t.Helper()
	if err := errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o700)); err != nil {
		t.Fatal(err)
	}
	for name, b := range im {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// seqsOf opens a journal and counts its records, or says why not.
func seqsOf(t testing.TB, cfg Config) (n uint64, err error) {
	t.Helper()
	j, err := Open(cfg)
	if err != nil {
		return 0, err
	}
	defer j.Close()
	err = j.Replay(0, func(r Record) error {
		if r.Kind == KindSettle && string(r.Data) != content(r.Seq) {
			return fmt.Errorf("record %d changed to %.20q", r.Seq, r.Data)
		}
		n++
		return nil
	})
	return n, err
}

// smallJournal writes three short groups, each acknowledged as synced, and
// returns the directory's image with the end of each group.
func smallJournal(t testing.TB) (cfg Config, im image, name string, ends []int64) {
	t.Helper()
	cfg = testConfig(t)
	j := mustOpen(t, cfg)
	mustBegin(t, j)
	ends = append(ends, j.durable.off)
	for _, n := range []int{1, 3, 2} {
		var last Pending
		j.mu.Lock() // so that the writer takes them as one group
		for range n {
			p, err := j.addLocked(KindSettle, Synced, func(dst []byte, seq uint64) []byte { return append(dst, content(seq*7)...) })
			if err != nil {
				t.Fatal(err)
			}
			last = p
		}
		j.mu.Unlock()
		if err := last.Wait(within(t)); err != nil {
			t.Fatal(err)
		}
		ends = append(ends, j.durable.off)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	cfg.FS = &faults{lazy: true}
	return cfg, readImage(t, cfg.Dir), sealed.SegmentName(1), ends
}

// TestTornWrite cuts the last group at every sector, in every way a disk may
// leave it: what was synced before is kept, the rest is gone, and the journal
// goes on.
func TestTornWrite(t *testing.T) {
	cfg, im, name, ends := smallJournal(t)
	first, last := ends[len(ends)-2], ends[len(ends)-1]
	sectors := int((last - first) / sealed.SectorSize)
	whole, err := countRaw(t, cfg)
	if err != nil {
		t.Fatal(err)
	}
	if sectors < 2 {
		t.Fatalf("the last group has %d sectors: nothing to tear", sectors)
	}
	for lost := 1; lost < 1<<sectors; lost++ { // a set of sectors that did not reach the disk
		torn := maps.Clone(im)
		torn[name] = slices.Clone(im[name])
		for s := range sectors {
			if lost&(1<<s) != 0 {
				at := first + int64(s)*sealed.SectorSize
				clear(torn[name][at : at+sealed.SectorSize])
			}
		}
		torn.write(t, cfg.Dir)
		n, err := countRaw(t, cfg)
		if err != nil || n >= whole || n == 0 {
			t.Fatalf("sectors %b of %d lost: %d of %d records, %v", lost, sectors, n, whole, err)
		}
		j := mustOpen(t, cfg)
		mustBegin(t, j)
		j.Close()
		if again, err := countRaw(t, cfg); err != nil || again != n+1 {
			t.Fatalf("sectors %b lost, then appended: %d records, %v", lost, again, err)
		}
	}
}

func countRaw(t testing.TB, cfg Config) (n uint64, err error) {
	t.Helper()
	j, err := Open(cfg)
	if err != nil {
		return 0, err
	}
	defer j.Close()
	err = j.Replay(0, func(r Record) error { n++; return nil })
	return n, err
}

// TestTornByteByByte zeroes the file from every byte of the last groups on.
// Inside a sector that is no power cut but damage, and must be refused. At a
// sector's border it looks like an older state of the disk, which only an anchor
// can tell, or like a torn last group, which may be cut.
func TestTornByteByByte(t *testing.T) {
	cfg, im, name, ends := smallJournal(t)
	whole, err := countRaw(t, cfg)
	if err != nil {
		t.Fatal(err)
	}
	last := ends[len(ends)-1]
	lastGroup := ends[len(ends)-2]
	im.write(t, cfg.Dir)
	f, err := os.OpenFile(filepath.Join(cfg.Dir, name), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for cut := ends[0]; cut < last; cut++ {
		if sealed.AllZero(im[name][cut:last]) {
			continue // only padding would be cut
		}
		if _, err := f.WriteAt(make([]byte, last-cut), cut); err != nil {
			t.Fatal(err)
		}
		n, err := countRaw(t, cfg)
		if _, err := f.WriteAt(im[name][ends[0]:last], ends[0]); err != nil {
			t.Fatal(err)
		}
		border := (cut + sealed.SectorSize - 1) / sealed.SectorSize * sealed.SectorSize
		inside := !sealed.AllZero(im[name][cut:border]) && !sealed.AllZero(im[name][border-sealed.SectorSize:cut])
		switch {
		case err == nil && inside:
			t.Fatalf("cut inside a sector at %d: %d of %d records without an error", cut, n, whole)
		case err == nil && n >= whole:
			t.Fatalf("cut at %d: nothing is missing", cut)
		case err != nil && !errors.Is(err, ErrDamaged):
			t.Fatalf("cut at %d: %v", cut, err)
		case err != nil && !inside && cut >= lastGroup:
			t.Fatalf("a torn last group at %d: %v", cut, err)
		}
	}
}

// TestZeroedSyncedGroup loses a group that a later one knew to be synced.
func TestZeroedSyncedGroup(t *testing.T) {
	cfg, im, name, ends := smallJournal(t)
	for i := range len(ends) - 2 {
		for at := ends[i]; at < ends[i+1]; at += sealed.SectorSize {
			hurt := maps.Clone(im)
			hurt[name] = slices.Clone(im[name])
			clear(hurt[name][at : at+sealed.SectorSize])
			hurt.write(t, cfg.Dir)
			if n, err := countRaw(t, cfg); !errors.Is(err, ErrDamaged) {
				t.Fatalf("sector at %d lost: %d records, %v", at, n, err)
			}
			if after := readImage(t, cfg.Dir); !slices.Equal(after[name], hurt[name]) {
				t.Fatalf("sector at %d lost: the damaged file was changed", at)
			}
		}
	}
}

// TestBitFlips changes one bit in every place that was written: no record that
// was synced may be missing or different without an error.
func TestBitFlips(t *testing.T) {
	cfg, im, name, ends := smallJournal(t)
	whole, err := countRaw(t, cfg)
	if err != nil {
		t.Fatal(err)
	}
	im.write(t, cfg.Dir)
	path := filepath.Join(cfg.Dir, name)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	end := ends[len(ends)-1] + sealed.SectorSize
	for at := int64(0); at < end; at++ {
		bit := byte(1) << (at % 8)
		b := []byte{im[name][at] ^ bit}
		if _, err := f.WriteAt(b, at); err != nil {
			t.Fatal(err)
		}
		n, err := countRaw(t, cfg)
		if !errors.Is(err, ErrDamaged) {
			t.Fatalf("bit flipped at %d: %d of %d records, %v", at, n, whole, err)
		}
		if _, err := f.WriteAt(im[name][at:at+1], at); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := countRaw(t, cfg); err != nil || n != whole {
		t.Fatalf("restored: %d records, %v", n, err)
	}
}

// longJournal spans several segments.
func longJournal(t testing.TB) (Config, image, []string) {
	t.Helper()
	cfg := testConfig(t)
	cfg.SegmentBytes = minSegment
	j := mustOpen(t, cfg)
	mustBegin(t, j)
	for range 1500 {
		add(t, j, KindSettle, Written)
	}
	if err := j.Sync(within(t)); err != nil {
		t.Fatal(err)
	}
	cfg.AnchorSeq, cfg.AnchorHash = j.Head()
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	im := readImage(t, cfg.Dir)
	var names []string
	for name := range im {
		if isSegment(name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	if len(names) < 4 {
		t.Fatalf("only %d segments", len(names))
	}
	return cfg, im, names
}

func TestDamagedSegments(t *testing.T) {
	cfg, im, names := longJournal(t)
	if n, err := seqsOf(t, cfg); err != nil || n != 1501 {
		t.Fatalf("undamaged: %d records, %v", n, err)
	}
	damage := map[string]func(im image, name string){
		"missing":   func(im image, name string) { delete(im, name) },
		"short":     func(im image, name string) { im[name] = im[name][:len(im[name])/2] },
		"empty":     func(im image, name string) { im[name] = nil },
		"flip":      func(im image, name string) { im[name][100_000] ^= 1 },
		"header":    func(im image, name string) { im[name][20] ^= 1 },
		"zero tail": func(im image, name string) { clear(im[name][sealed.SectorSize*20:]) },
		"swapped":   func(im image, name string) { im[name], im[names[1]] = im[names[1]], im[name] },
	}
	for what, hurt := range damage {
		for i, name := range names {
			if what == "swapped" && i == 1 || what == "flip" && i == len(names)-1 {
				continue // no change, or behind the end
			}
			bad := image{}
			for n, b := range im {
				bad[n] = slices.Clone(b)
			}
			hurt(bad, name)
			bad.write(t, cfg.Dir)
			if n, err := seqsOf(t, cfg); !errors.Is(err, ErrDamaged) {
				t.Errorf("%s %s: %d records, %v", what, name, n, err)
			}
		}
	}
}

func TestRollBackIsSeenByTheAnchor(t *testing.T) {
	cfg := testConfig(t)
	j := mustOpen(t, cfg)
	mustBegin(t, j)
	add(t, j, KindSettle, Synced)
	j.Close()
	old := readImage(t, cfg.Dir)
	j = mustOpen(t, cfg)
	mustBegin(t, j)
	add(t, j, KindSettle, Synced)
	j.Close()
	cfg.AnchorSeq, cfg.AnchorHash = j.Head()
	mustOpen(t, cfg).Close()
	wrong := cfg
	wrong.AnchorHash[0] ^= 1
	if _, err := Open(wrong); !errors.Is(err, ErrDamaged) {
		t.Errorf("another hash: %v", err)
	}
	early := cfg
	early.AnchorSeq = 1 // a head, but of another hash
	if _, err := Open(early); !errors.Is(err, ErrDamaged) {
		t.Errorf("another record: %v", err)
	}
	old.write(t, cfg.Dir)
	if _, err := Open(cfg); !errors.Is(err, ErrDamaged) {
		t.Errorf("rolled back: %v", err)
	}
	image{}.write(t, cfg.Dir)
	if _, err := Open(cfg); !errors.Is(err, ErrDamaged) {
		t.Errorf("empty: %v", err)
	}
}

func TestAnchorInOlderSegments(t *testing.T) {
	cfg := testConfig(t)
	cfg.SegmentBytes = minSegment
	j := mustOpen(t, cfg)
	mustBegin(t, j)
	type anchor struct {
		seq  uint64
		hash [32]byte
	}
	var anchors []anchor
	for range 900 {
		add(t, j, KindSettle, Synced)
		var a anchor
		a.seq, a.hash = j.Head()
		anchors = append(anchors, a)
	}
	j.Close()
	for i := 0; i < len(anchors); i += 31 {
		cfg.AnchorSeq, cfg.AnchorHash = anchors[i].seq, anchors[i].hash
		mustOpen(t, cfg).Close()
		cfg.AnchorHash[31] ^= 1
		if _, err := Open(cfg); !errors.Is(err, ErrDamaged) {
			t.Fatalf("wrong hash at record %d: %v", cfg.AnchorSeq, err)
		}
	}
}

// TestNoncesAreNotRepeated: a record that takes the number of one that was cut
// off must not be sealed like it, or both could be read from their difference.
func TestNoncesAreNotRepeated(t *testing.T) {
	cfg, im, name, ends := smallJournal(t)
	at := ends[len(ends)-2]
	torn := image{name: slices.Clone(im[name])}
	clear(torn[name][at+sealed.SectorSize : ends[len(ends)-1]])
	torn.write(t, cfg.Dir)
	j := mustOpen(t, cfg)
	mustBegin(t, j)
	j.Close()
	now := readImage(t, cfg.Dir)[name]
	incarnation := func(b []byte) string { return string(b[at+24+8 : at+24+16]) }
	if incarnation(now) == incarnation(im[name]) {
		t.Fatal("the same incarnation after a cut")
	}
}

// FuzzSegment gives the reader arbitrary changes of a valid segment.
func FuzzSegment(f *testing.F) {
	cfg, im, name, ends := smallJournal(f)
	valid := im[name]
	whole, err := countRaw(f, cfg)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(uint32(ends[0]), []byte{0})
	f.Add(uint32(ends[1]), make([]byte, 600))
	f.Add(uint32(0), valid[:sealed.SectorSize])
	f.Fuzz(func(t *testing.T, at uint32, b []byte) {
		cfg := testConfig(t)
		cfg.FS = &faults{lazy: true}
		bad := slices.Clone(valid)
		copy(bad[int(at)%len(bad):], b)
		image{name: bad}.write(t, cfg.Dir)
		n, err := countRaw(t, cfg)
		if err != nil && !errors.Is(err, ErrDamaged) {
			t.Fatalf("%v", err)
		}
		if n > whole {
			t.Fatalf("%d records out of %d", n, whole)
		}
	})
}
