package trail

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/audit"
	"golang.org/x/mod/sumdb/note"
)

// A bundle is a whole log in one file, with what it takes to verify it without a
// node: a line that says what it is, the checkpoints, the records in their order,
// and a line that ends it. The newest checkpoint covers every record.
type (
	bundleHead struct {
		Bundle  string `json:"bundle"` // bundleForm
		Log     string `json:"log"`
		Records uint64 `json:"records"`
		Key     string `json:"key"` // for people: verification takes the key from elsewhere
	}
	bundleLine struct {
		Checkpoint string `json:"checkpoint,omitempty"`
		End        uint64 `json:"end,omitempty"`
	}
)

const bundleForm = "bulkhead-audit-1"

// ErrBundle says that a file is no bundle, or is cut off.
var ErrBundle = errors.New("not a whole audit export")

// Export writes a log's bundle. Its end is signed now, so every record is
// covered. Errors: *bulkhead.Error NotFound, code log_not_found, before anything
// is written; *audit.Damage when the copy does not hold, which cuts the output.
func (s *Store) Export(ctx context.Context, log string, w io.Writer) error {
	c, truth, err := s.exported(ctx, log)
	if err != nil {
		return err
	}
	signed, err := sign(s.cfg.Cluster, s.cfg.Signer, truth)
	if err != nil {
		return err
	}
	out := bufio.NewWriterSize(w, 64<<10)
	check := audit.NewVerifier(audit.Log{Name: log})
	if err := s.exportHead(c, truth, signed, out, check); err != nil {
		return err
	}
	err = c.each(ctx, truth.Size, func(l *line) error {
		if err := check.Add(l.raw); err != nil {
			return err
		}
		out.Write(l.raw)
		return out.WriteByte('\n')
	})
	if err != nil {
		return err
	}
	if err := check.Finish(); err != nil {
		return err
	}
	if err := writeLine(out, bundleLine{End: truth.Size}); err != nil {
		return err
	}
	if err := out.Flush(); err != nil {
		return fmt.Errorf("write audit export: %w", err)
	}
	return nil
}

func (s *Store) exported(ctx context.Context, log string) (*copyOf, audit.Log, error) {
	none := bulkhead.E(bulkhead.NotFound, "log_not_found", "Nothing was ever written to this log.")
	if !validLog(log) {
		return nil, audit.Log{}, none
	}
	truth, ok := s.cfg.View().AuditLog(log)
	if !ok || truth.Size == 0 {
		return nil, truth, none
	}
	if err := s.Await(ctx); err != nil {
		return nil, truth, bulkhead.E(bulkhead.Unavailable, "audit_unavailable", "This node's copy of the audit trail cannot be kept.").With(err)
	}
	c, err := s.copy(log)
	return c, truth, err
}

// exportHead writes what comes before the records.
func (s *Store) exportHead(c *copyOf, truth audit.Log, signed []byte, out io.Writer, check *audit.Verifier) error {
	if err := writeLine(out, bundleHead{bundleForm, c.log, truth.Size, s.cfg.Key}); err != nil {
		return err
	}
	c.mu.Lock()
	lines, err := readCheckpoints(c.dir)
	c.mu.Unlock()
	if err != nil {
		return err
	}
	for _, l := range append(lines, noteLine(truth.Size, signed)) {
		var n keptNote
		if err := json.Unmarshal(l, &n); err != nil {
			return fmt.Errorf("export %s: read its checkpoints: %w", c.log, err)
		}
		p, err := openCheckpoint(c.log, []byte(n.Note), s.key)
		if err != nil {
			return fmt.Errorf("export %s: checkpoint of %d records: %w", c.log, n.Size, err)
		}
		if p.Size > truth.Size {
			if now, _ := s.cfg.View().AuditLog(c.log); p.Size <= now.Size {
				continue // signed since
			}
		}
		if err := check.Expect(p.Size, p.Root); err != nil {
			return err
		}
		if err := writeLine(out, bundleLine{Checkpoint: n.Note}); err != nil {
			return err
		}
	}
	return nil
}

func noteLine(size uint64, signed []byte) []byte {
	raw, err := json.Marshal(keptNote{size, string(signed)})
	if err != nil {
		panic("internal error: encode checkpoint: " + err.Error())
	}
	return raw
}

func writeLine(w io.Writer, v any) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode audit export: %w", err)
	}
	if _, err := w.Write(append(raw, '\n')); err != nil {
		return fmt.Errorf("write audit export: %w", err)
	}
	return nil
}

// BundleReport is what a verified bundle holds.
type BundleReport struct {
	Log         string    `json:"log"`
	Records     uint64    `json:"records"`
	Checkpoints int       `json:"checkpoints"`
	Origin      string    `json:"origin"` // that was signed
	First       time.Time `json:"first"`  // times of the first
	Last        time.Time `json:"last"`   // and of the last record
}

// VerifyBundle reads an exported log and holds all of it against the public key:
// the chain, the tree, and every checkpoint. It needs no node. Its error is
// *audit.Damage, or wraps ErrBundle or audit.ErrCheckpoint.
func VerifyBundle(r io.Reader, key note.Verifier) (BundleReport, error) {
	in := bufio.NewScanner(r)
	in.Buffer(make([]byte, 64<<10), audit.MaxLine+2)
	b := &bundle{in: in, key: key}
	err := b.head()
	if err == nil {
		err = b.body()
	}
	if err == nil && in.Scan() {
		err = fmt.Errorf("%w: something comes after its end", ErrBundle)
	}
	if err == nil && in.Err() != nil {
		err = fmt.Errorf("%w: %w", ErrBundle, in.Err())
	}
	return b.report, err
}

// bundle is a bundle that is being verified.
type bundle struct {
	in     *bufio.Scanner
	key    note.Verifier
	check  *audit.Verifier
	size   uint64 // as its first line says
	newest uint64 // records that a checkpoint covers
	report BundleReport
}

func (b *bundle) head() error {
	if !b.in.Scan() {
		return fmt.Errorf("%w: it is empty", ErrBundle)
	}
	var h bundleHead
	if err := json.Unmarshal(b.in.Bytes(), &h); err != nil || h.Bundle != bundleForm {
		return fmt.Errorf("%w: a list of records, which may be filtered, cannot be verified as a whole; take bulkhead audit export", ErrBundle)
	}
	if !validLog(h.Log) {
		return fmt.Errorf("%w: no log is named %.80q", ErrBundle, h.Log)
	}
	b.check, b.size, b.report.Log = audit.NewVerifier(audit.Log{Name: h.Log}), h.Records, h.Log
	return nil
}

// body reads up to the line that ends the bundle.
func (b *bundle) body() error {
	for b.in.Scan() {
		raw := b.in.Bytes()
		var l bundleLine
		if err := json.Unmarshal(raw, &l); err != nil {
			return b.check.Add(raw) // which names the record
		}
		switch {
		case l.Checkpoint != "":
			if err := b.checkpoint(l.Checkpoint); err != nil {
				return err
			}
		case l.End > 0:
			return b.end(l.End)
		default:
			if err := b.record(raw); err != nil {
				return err
			}
		}
	}
	if err := b.check.Finish(); err != nil {
		return err
	}
	return fmt.Errorf("%w: it is cut off after record %d", ErrBundle, b.report.Records)
}

func (b *bundle) checkpoint(signed string) error {
	p, err := openCheckpoint(b.report.Log, []byte(signed), b.key)
	if err != nil {
		return err
	}
	b.report.Checkpoints++
	if p.Size >= b.newest {
		b.newest, b.report.Origin = p.Size, p.Origin
	}
	return b.check.Expect(p.Size, p.Root)
}

func (b *bundle) record(raw []byte) error {
	if err := b.check.Add(raw); err != nil {
		return err
	}
	at := time.UnixMilli(b.check.Log().At).UTC()
	if b.report.Records++; b.report.Records == 1 {
		b.report.First = at
	}
	b.report.Last = at
	return nil
}

func (b *bundle) end(records uint64) error {
	if err := b.check.Finish(); err != nil {
		return err
	}
	switch {
	case records != b.report.Records || b.size != b.report.Records:
		return fmt.Errorf("%w: it says %d records and has %d", ErrBundle, b.size, b.report.Records)
	case b.newest != b.report.Records:
		return fmt.Errorf("%w: its checkpoints cover %d of %d records", ErrBundle, b.newest, b.report.Records)
	}
	return nil
}
