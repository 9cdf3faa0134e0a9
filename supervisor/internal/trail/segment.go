package trail

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/audit"
	"github.com/bulkhead-ai/bulkhead/cluster/state"
	"github.com/bulkhead-ai/bulkhead/worker/durable"
	"github.com/bulkhead-ai/bulkhead/worker/receipt"
)

const (
	segmentSuffix   = ".ndjson"
	checkpointsFile = "checkpoints.ndjson"
	asidePrefix     = "damaged-"
	seqDigits       = 20
	platformFolder  = "platform"
	tenantFolder    = "tenant-"
)

// validLog says whether a log may have this name; see command.AuditEntry.
func validLog(name string) bool {
	tenant, ok := strings.CutPrefix(name, audit.TenantLog(""))
	return name == audit.Platform || ok && bulkhead.ValidName(tenant)
}

// folderOf names a log's folder. A tenant's name has neither slash nor dot, so
// no name leads elsewhere, and none can be that of the platform's folder.
func folderOf(log string) string {
	if log == audit.Platform {
		return platformFolder
	}
	return tenantFolder + strings.TrimPrefix(log, audit.TenantLog(""))
}

// logOf is folderOf backwards.
func logOf(folder string) (string, bool) {
	tenant, ok := strings.CutPrefix(folder, tenantFolder)
	switch {
	case folder == platformFolder:
		return audit.Platform, true
	case ok && bulkhead.ValidName(tenant):
		return audit.TenantLog(bulkhead.TenantID(tenant)), true
	}
	return "", false
}

func segmentName(first uint64) string {
	return fmt.Sprintf("%0*d%s", seqDigits, first, segmentSuffix)
}

// segmentFirst reads a segment's name; false: the file is no segment.
func segmentFirst(name string) (uint64, bool) {
	digits, ok := strings.CutSuffix(name, segmentSuffix)
	if !ok || len(digits) != seqDigits {
		return 0, false
	}
	first, err := strconv.ParseUint(digits, 10, 64)
	return first, err == nil && first > 0
}

// listSegments answers the first records of a folder's segments, ascending.
func listSegments(dir string) ([]uint64, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list audit segments: %w", err)
	}
	var out []uint64
	for _, e := range entries {
		if first, ok := segmentFirst(e.Name()); ok && e.Type().IsRegular() {
			out = append(out, first)
		}
	}
	slices.Sort(out)
	return out, nil
}

// line is a record as it is in a file.
type line struct {
	raw  []byte // without the newline
	seq  uint64 // 0: it is no record of the log
	prev string // hex
	hash receipt.Hash
	at   int64
}

// readLine never fails: what is no record of the log has seq 0.
func readLine(log string, raw []byte) line {
	r, err := audit.ReadRecord(raw)
	if err != nil || r.Log != log || r.Seq == 0 {
		return line{raw: raw}
	}
	return line{raw: raw, seq: r.Seq, prev: r.Prev, hash: receipt.LeafHash(raw), at: r.At}
}

// stateLine makes a line of one of the state, which is a record by construction:
// it is parsed only where the one before it is not at hand.
func stateLine(before []line, l state.AuditLine) line {
	if n := len(before); n > 0 && before[n-1].seq+1 == l.Seq {
		last := &before[n-1]
		return line{raw: l.Line, seq: l.Seq, prev: linkTo(last.seq, last.hash), hash: receipt.LeafHash(l.Line)}
	}
	return readLine(l.Log, l.Line)
}

// follows says whether the record comes right after another one.
func (l *line) follows(seq uint64, hash receipt.Hash) bool {
	return l.seq == seq+1 && l.prev == linkTo(seq, hash)
}

// linkTo is what a record's Prev says of the record before it.
func linkTo(seq uint64, hash receipt.Hash) string {
	if seq == 0 {
		return ""
	}
	return hex.EncodeToString(hash[:])
}

// readSegment reads a segment's lines. What follows the last newline is the last
// line, and is torn.
func readSegment(log, path string) (lines []line, torn bool, err error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, false, fmt.Errorf("read audit segment: %w", err)
	}
	for len(raw) > 0 {
		end := bytes.IndexByte(raw, '\n')
		if end < 0 {
			return append(lines, line{raw: raw}), true, nil
		}
		lines = append(lines, readLine(log, raw[:end]))
		raw = raw[end+1:]
	}
	return lines, false, nil
}

// writeSegment puts a segment in place at once, or not at all.
func writeSegment(dir string, first uint64, lines []line) error {
	var buf bytes.Buffer
	for i := range lines {
		buf.Write(lines[i].raw)
		buf.WriteByte('\n')
	}
	if err := durable.Replace(filepath.Join(dir, segmentName(first)), buf.Bytes()); err != nil {
		return fmt.Errorf("write audit segment: %w", err)
	}
	return nil
}

// setAside gives a file a second name, under which nobody reads it and nobody
// deletes it. The first one can then be replaced or removed.
func setAside(dir, name string) error {
	aside := asidePrefix + strings.TrimSuffix(name, segmentSuffix) + "-" + strconv.FormatInt(time.Now().UnixNano(), 10) + segmentSuffix
	if err := os.Link(filepath.Join(dir, name), filepath.Join(dir, aside)); err != nil {
		return fmt.Errorf("set audit segment aside: %w", err)
	}
	return durable.SyncDir(dir)
}
