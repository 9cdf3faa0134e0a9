package state

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/bulkhead-ai/bulkhead/cluster/audit"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
)

// A snapshot is a header, the sections in this order, and an empty end section.
// Integers are big endian; each CRC-32C covers its header or section from the
// first byte. Records stand in the order of their keys, so two equal states have
// equal snapshots.
//
//	+------+---------+----------+-------+-------+--------------+-------+-----+
//	| BHST | version | reserved | index | clock | platform rev | slots | CRC |
//	| 4    | 2       | 2        | 8     | 8     | 8            | 4     | 4   |
//	+------+---------+----------+-------+-------+--------------+-------+-----+
//	+---------+-------+---------------------------+-----+
//	| section | count | count x (length, record)  | CRC |
//	| 1       | 8     |          4       ...      | 4   |
//	+---------+-------+---------------------------+-----+
//
// Usage rows and lines of the audit trail are binary (see appendRow and
// appendLine), because they are many; the rest is JSON.
const (
	snapshotMagic   = "BHST"
	snapshotVersion = 3
	snapshotHead    = 36
	sectionHead     = 9
	maxRecord       = 8 << 20
)

// The sections. 0 is invalid, so that zeroed bytes are no section.
const (
	sectionObjects = 1
	sectionRetired = 2
	sectionTenants = 3
	sectionKeys    = 4
	sectionUsage   = 5
	sectionDone    = 6
	sectionCluster = 7 // one record or none
	sectionNodes   = 8
	sectionRemoved = 9
	sectionTokens  = 10

	sectionLogs     = 11
	sectionTrail    = 12
	sectionAnchors  = 13
	sectionUses     = 14
	sectionWraps    = 15
	sectionGrants   = 16
	sectionErasures = 17
	sectionHolds    = 18

	sectionEnd = 0xff
)

// The records that are not stored as they are.
type (
	retiredRecord struct {
		Ref        string `json:"ref"`
		Generation uint64 `json:"generation"`
	}
	tenantRecord struct {
		ID     string  `json:"id"`
		Tenant *tenant `json:"tenant"`
	}
	clusterRecord struct {
		Cluster
		Rev uint64 `json:"rev"`
	}
)

// WriteTo writes a snapshot of the view. It may run for long beside Apply: the
// view does not change.
func (v *View) WriteTo(w io.Writer) (int64, error) {
	sw := &sectionWriter{w: bufio.NewWriterSize(w, 256<<10)}
	sw.header(v)
	writeSection(sw, sectionObjects, v.objects, func(_ string, o *object) ([]byte, error) { return json.Marshal(o) })
	writeSection(sw, sectionRetired, v.retired, func(ref string, gen uint64) ([]byte, error) {
		return json.Marshal(retiredRecord{ref, gen})
	})
	writeSection(sw, sectionTenants, v.tenants, func(id string, t *tenant) ([]byte, error) {
		return json.Marshal(tenantRecord{id, t})
	})
	writeSection(sw, sectionKeys, v.keys, func(_ string, k *command.Key) ([]byte, error) { return json.Marshal(k) })
	var buf []byte
	writeSection(sw, sectionUsage, v.usage, func(_ string, r *UsageRow) ([]byte, error) {
		buf = appendRow(buf[:0], r)
		return buf, nil
	})
	writeSection(sw, sectionDone, v.done.byID, func(_ string, d *done) ([]byte, error) { return json.Marshal(d) })
	sw.members(v)
	sw.access(v)
	writeSection(sw, sectionEnd, tree[bool]{}, nil)
	if sw.err == nil {
		sw.err = sw.w.Flush()
	}
	if sw.err != nil {
		return sw.n, fmt.Errorf("write snapshot at index %d: %w", v.index, sw.err)
	}
	return sw.n, nil
}

// members writes what only a cluster has.
func (w *sectionWriter) members(v *View) {
	var clusters tree[*Cluster]
	if v.cluster != nil {
		clusters = clusters.put("", v.cluster)
	}
	writeSection(w, sectionCluster, clusters, func(_ string, c *Cluster) ([]byte, error) {
		return json.Marshal(clusterRecord{*c, v.nodesRev})
	})
	writeSection(w, sectionNodes, v.nodes, func(_ string, n *command.Node) ([]byte, error) { return json.Marshal(n) })
	writeSection(w, sectionRemoved, v.removed, func(_ string, n *removedNode) ([]byte, error) { return json.Marshal(n) })
	writeSection(w, sectionTokens, v.tokens, func(_ string, j *joinToken) ([]byte, error) { return json.Marshal(j) })
}

// access writes the audit trail and what is known of keys' use, grants and
// erasures.
func (w *sectionWriter) access(v *View) {
	writeSection(w, sectionLogs, v.logs, func(_ string, l *audit.Log) ([]byte, error) { return json.Marshal(l) })
	var buf []byte
	writeSection(w, sectionTrail, v.trail.lines, func(_ string, l *AuditLine) ([]byte, error) {
		buf = appendLine(buf[:0], l)
		return buf, nil
	})
	writeSection(w, sectionAnchors, v.anchors, func(_ string, a *command.Anchor) ([]byte, error) { return json.Marshal(a) })
	writeSection(w, sectionUses, v.uses, func(_ string, u *keyUse) ([]byte, error) { return json.Marshal(u) })
	writeSection(w, sectionWraps, v.wraps, func(_ string, x *command.CreateWrap) ([]byte, error) { return json.Marshal(x) })
	writeSection(w, sectionGrants, v.grants, func(_ string, g *command.AccessGrant) ([]byte, error) { return json.Marshal(g) })
	writeSection(w, sectionErasures, v.erasures, func(_ string, e *erasure) ([]byte, error) { return json.Marshal(e) })
	writeSection(w, sectionHolds, v.holds, func(_ string, h *hold) ([]byte, error) { return json.Marshal(h) })
}

// Sum is the SHA-256 of the view's snapshot: nodes that applied the same
// commands have the same.
func (v *View) Sum() ([32]byte, error) {
	h := sha256.New()
	if _, err := v.WriteTo(h); err != nil {
		return [32]byte{}, err
	}
	return [32]byte(h.Sum(nil)), nil
}

// sectionWriter writes until the first error and keeps it.
type sectionWriter struct {
	w   *bufio.Writer
	crc uint32
	n   int64
	err error
}

func (w *sectionWriter) put(b []byte) {
	if w.err != nil {
		return
	}
	w.crc = crc32.Update(w.crc, castagnoli(), b)
	n, err := w.w.Write(b)
	w.n += int64(n)
	w.err = err
}

// sum ends a header or section with its CRC.
func (w *sectionWriter) sum() {
	w.put(binary.BigEndian.AppendUint32(nil, w.crc))
	w.crc = 0
}

func (w *sectionWriter) header(v *View) {
	b := make([]byte, 0, snapshotHead)
	b = append(b, snapshotMagic...)
	b = binary.BigEndian.AppendUint16(b, snapshotVersion)
	b = binary.BigEndian.AppendUint16(b, 0)
	b = binary.BigEndian.AppendUint64(b, v.index)
	b = binary.BigEndian.AppendUint64(b, uint64(v.clock))
	b = binary.BigEndian.AppendUint64(b, v.platformRev)
	b = binary.BigEndian.AppendUint32(b, v.slots)
	w.put(b)
	w.sum()
}

func writeSection[V any](w *sectionWriter, id byte, t tree[V], encode func(key string, val V) ([]byte, error)) {
	w.put(binary.BigEndian.AppendUint64([]byte{id}, uint64(t.len())))
	var size [4]byte
	t.scan("", func(key string, val V) bool {
		rec, err := encode(key, val)
		if err != nil {
			w.err = fmt.Errorf("section %d: %w", id, err)
		}
		binary.BigEndian.PutUint32(size[:], uint32(len(rec)))
		w.put(size[:])
		w.put(rec)
		return w.err == nil
	})
	w.sum()
}

// castagnoli is the table of CRC-32C, which the processor computes itself.
func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }
