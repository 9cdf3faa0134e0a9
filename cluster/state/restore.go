package state

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"strings"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"github.com/bulkhead-ai/bulkhead/configs/manifest"
	"github.com/bulkhead-ai/bulkhead/worker/receipt"
)

// ErrSnapshot says that bytes are not a whole, undamaged snapshot.
var ErrSnapshot = errors.New("damaged snapshot")

// Restore replaces the state by a snapshot that WriteTo wrote. The snapshot is
// read and checked completely before it is put in force; on an error the state
// is as before. Errors wrap ErrSnapshot or the reader's error.
func (s *State) Restore(r io.Reader) error {
	sr := &sectionReader{r: bufio.NewReaderSize(r, 256<<10)}
	v, err := sr.view()
	if err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	old := s.view.Load()
	v.changes.floor, v.rewound = v.floorAfter(old), old.rewound
	if v.index < old.index {
		v.rewound++
	}
	s.view.Store(v)
	return nil
}

type sectionReader struct {
	r   *bufio.Reader
	crc uint32
}

func (r *sectionReader) view() (*View, error) {
	v := new(View)
	if err := r.header(v); err != nil {
		return nil, err
	}
	for _, read := range [...]func(*View) error{
		r.objects, r.retired, r.tenants, r.keys, r.usage, r.done, r.members, r.access, r.end,
	} {
		if err := read(v); err != nil {
			return nil, err
		}
	}
	if err := v.checkTenants(); err != nil {
		return nil, err
	}
	if err := v.checkMembers(); err != nil {
		return nil, err
	}
	return v, v.checkAccess()
}

// take reads exactly len(b) bytes; the end of the input is damage.
func (r *sectionReader) take(b []byte) error {
	if _, err := io.ReadFull(r.r, b); err != nil {
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return fmt.Errorf("%w: it ends early", ErrSnapshot)
		}
		return fmt.Errorf("read snapshot: %w", err)
	}
	r.crc = crc32.Update(r.crc, castagnoli(), b)
	return nil
}

// sum checks the CRC that ends a header or section.
func (r *sectionReader) sum(what string) error {
	want := r.crc
	var b [4]byte
	if err := r.take(b[:]); err != nil {
		return err
	}
	r.crc = 0
	if binary.BigEndian.Uint32(b[:]) != want {
		return fmt.Errorf("%w: checksum of %s", ErrSnapshot, what)
	}
	return nil
}

func (r *sectionReader) header(v *View) error {
	var b [snapshotHead]byte
	if err := r.take(b[:]); err != nil {
		return err
	}
	if err := r.sum("the header"); err != nil {
		return err
	}
	if string(b[:4]) != snapshotMagic {
		return fmt.Errorf("%w: no header", ErrSnapshot)
	}
	if version := binary.BigEndian.Uint16(b[4:]); version != snapshotVersion {
		return fmt.Errorf("snapshot version %d: this build reads version %d", version, snapshotVersion)
	}
	v.index = binary.BigEndian.Uint64(b[8:])
	v.clock = int64(binary.BigEndian.Uint64(b[16:]))
	v.platformRev = binary.BigEndian.Uint64(b[24:])
	v.slots = binary.BigEndian.Uint32(b[32:])
	if v.clock < 0 || v.platformRev > v.index {
		return fmt.Errorf("%w: header out of range", ErrSnapshot)
	}
	return nil
}

// section calls fn for each record; rec is valid during the call only.
func (r *sectionReader) section(id byte, fn func(rec []byte) error) error {
	var head [sectionHead]byte
	if err := r.take(head[:]); err != nil {
		return err
	}
	if head[0] != id {
		return fmt.Errorf("%w: section %d where %d should be", ErrSnapshot, head[0], id)
	}
	var buf []byte
	for range binary.BigEndian.Uint64(head[1:]) {
		var size [4]byte
		if err := r.take(size[:]); err != nil {
			return err
		}
		n := int(binary.BigEndian.Uint32(size[:]))
		if n > maxRecord {
			return fmt.Errorf("%w: record of %d bytes in section %d", ErrSnapshot, n, id)
		}
		buf = slices.Grow(buf[:0], n)[:n]
		if err := r.take(buf); err != nil {
			return err
		}
		if err := fn(buf); err != nil {
			return fmt.Errorf("%w: section %d: %w", ErrSnapshot, id, err)
		}
	}
	return r.sum(fmt.Sprintf("section %d", id))
}

func (r *sectionReader) objects(v *View) error {
	var b builder[*object]
	err := r.section(sectionObjects, func(rec []byte) error {
		o := new(object)
		if err := json.Unmarshal(rec, o); err != nil {
			return err
		}
		if o.Object.Spec() == nil {
			return fmt.Errorf("%s without its spec", o.Object.Ref)
		}
		return b.add(refKey(o.Object.Ref), o)
	})
	v.objects = b.tree()
	return err
}

func (r *sectionReader) retired(v *View) error {
	var b builder[uint64]
	err := r.section(sectionRetired, func(rec []byte) error {
		var x retiredRecord
		if err := json.Unmarshal(rec, &x); err != nil {
			return err
		}
		return b.add(x.Ref, x.Generation)
	})
	v.retired = b.tree()
	return err
}

func (r *sectionReader) tenants(v *View) error {
	var b builder[*tenant]
	err := r.section(sectionTenants, func(rec []byte) error {
		var x tenantRecord
		if err := json.Unmarshal(rec, &x); err != nil {
			return err
		}
		if x.Tenant == nil || x.Tenant.Slot >= v.slots || x.Tenant.Rev > v.index {
			return fmt.Errorf("tenant %q out of range", x.ID)
		}
		var f receipt.Frontier
		if err := f.UnmarshalBinary(x.Tenant.Frontier); err != nil || f.Size() != x.Tenant.TreeSize {
			return fmt.Errorf("receipt tree of tenant %q", x.ID)
		}
		return b.add(x.ID, x.Tenant)
	})
	v.tenants = b.tree()
	return err
}

// keys also rebuilds the two indexes over the keys, which are not stored.
func (r *sectionReader) keys(v *View) error {
	var ids builder[*command.Key]
	var all []*command.Key
	err := r.section(sectionKeys, func(rec []byte) error {
		k := new(command.Key)
		if err := json.Unmarshal(rec, k); err != nil {
			return err
		}
		if err := checkKey(k); err != nil {
			return err
		}
		all = append(all, k)
		return ids.add(string(k.ID), k)
	})
	if err != nil {
		return err
	}
	v.keys = ids.tree()
	return v.indexKeys(all)
}

func (v *View) indexKeys(all []*command.Key) error {
	var tenants builder[*command.Key]
	slices.SortFunc(all, func(a, b *command.Key) int {
		if c := strings.Compare(string(a.Tenant), string(b.Tenant)); c != 0 {
			return c
		}
		return strings.Compare(string(a.ID), string(b.ID))
	})
	for _, k := range all {
		if err := tenants.add(tenantKeyKey(k.Tenant, k.ID), k); err != nil {
			return fmt.Errorf("%w: key %s: %w", ErrSnapshot, k.ID, err)
		}
	}
	v.byTenant = tenants.tree()
	var hashes builder[bulkhead.KeyID]
	slices.SortFunc(all, func(a, b *command.Key) int { return bytes.Compare(a.Hash, b.Hash) })
	for _, k := range all {
		if len(k.Hash) == 0 {
			continue
		}
		if err := hashes.add(string(k.Hash), k.ID); err != nil {
			return fmt.Errorf("%w: hash of key %s: %w", ErrSnapshot, k.ID, err)
		}
	}
	v.hashes = hashes.tree()
	return nil
}

func (r *sectionReader) usage(v *View) error {
	var b builder[*UsageRow]
	err := r.section(sectionUsage, func(rec []byte) error {
		row, err := parseRow(rec)
		if err != nil {
			return err
		}
		return b.add(row.key(), row)
	})
	v.usage = b.tree()
	return err
}

func (r *sectionReader) done(v *View) error {
	var b builder[*done]
	err := r.section(sectionDone, func(rec []byte) error {
		d := new(done)
		if err := json.Unmarshal(rec, d); err != nil {
			return err
		}
		if _, err := d.decode(); err != nil {
			return err
		}
		if d.Index > v.index {
			return fmt.Errorf("answer of command %s is of the future", d.ID)
		}
		return b.add(d.ID, d)
	})
	if err != nil {
		return err
	}
	v.done.byID = b.tree()
	v.done.byID.scan("", func(id string, d *done) bool {
		v.done.order = v.done.order.put(indexKey(d.Index), id)
		v.done.bytes += d.size()
		return true
	})
	if v.done.order.len() != v.done.byID.len() {
		return fmt.Errorf("%w: two answers at one index", ErrSnapshot)
	}
	return nil
}

func (r *sectionReader) end(*View) error {
	err := r.section(sectionEnd, func([]byte) error { return errors.New("a record at the end") })
	if err != nil {
		return err
	}
	if _, err := r.r.ReadByte(); err != io.EOF {
		return fmt.Errorf("%w: bytes after the end", ErrSnapshot)
	}
	return nil
}

// checkTenants makes sure of what the commands rest on: a tenant object and a
// living record always come together.
func (v *View) checkTenants() error {
	living := len(v.Tenants())
	objects := v.Objects(manifest.KindTenant)
	for _, o := range objects {
		if rec, ok := v.tenants.get(o.Name); !ok || rec.Deleted {
			return fmt.Errorf("%w: tenant %q has no record", ErrSnapshot, o.Name)
		}
	}
	if living != len(objects) {
		return fmt.Errorf("%w: %d tenants, but %d records of tenants", ErrSnapshot, len(objects), living)
	}
	return nil
}
