package trail

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/bulkhead-ai/bulkhead/cluster/audit"
	"github.com/bulkhead-ai/bulkhead/worker/durable"
	"go.uber.org/zap"
	"golang.org/x/mod/sumdb/note"
)

// keptNote is a line of a log's checkpoint file.
type keptNote struct {
	Size uint64 `json:"size"`
	Note string `json:"note"`
}

// openCheckpoints cuts off what a crash left of a line, and answers the size
// that the newest checkpoint names.
func openCheckpoints(dir string) (kept uint64, err error) {
	path := filepath.Join(dir, checkpointsFile)
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read audit checkpoints: %w", err)
	}
	if whole := bytes.LastIndexByte(raw, '\n') + 1; whole < len(raw) {
		if err := truncate(path, int64(whole)); err != nil {
			return 0, err
		}
		raw = raw[:whole]
	}
	for l := range bytes.Lines(raw) {
		var n keptNote
		if json.Unmarshal(l, &n) == nil {
			kept = max(kept, n.Size)
		}
	}
	return kept, nil
}

// readCheckpoints answers the lines of the file.
func readCheckpoints(dir string) ([][]byte, error) {
	f, err := os.Open(filepath.Join(dir, checkpointsFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read audit checkpoints: %w", err)
	}
	defer f.Close()
	in := bufio.NewScanner(f)
	in.Buffer(make([]byte, 4<<10), 64<<10)
	var out [][]byte
	for in.Scan() {
		out = append(out, bytes.Clone(in.Bytes()))
	}
	if err := in.Err(); err != nil {
		return nil, fmt.Errorf("read audit checkpoints: %w", err)
	}
	return out, nil
}

// keepCheckpoints writes down the signed checkpoints that are newer than those
// which are kept. The state knows the newest only.
func (s *Store) keepCheckpoints() {
	view := s.cfg.View()
	for _, c := range s.all() {
		a, ok := view.Anchor(c.log)
		if !ok {
			continue
		}
		if err := c.keep(a.Size, a.Note); err != nil {
			s.cfg.Log.Error("keep audit checkpoint", zap.String("log", c.log), zap.Error(err))
		}
	}
}

func (c *copyOf) keep(size uint64, signed []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if size <= c.kept {
		return nil
	}
	raw, err := json.Marshal(keptNote{size, string(signed)})
	if err != nil {
		return fmt.Errorf("encode checkpoint: %w", err)
	}
	path := filepath.Join(c.dir, checkpointsFile)
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("open checkpoints: %w", err)
	}
	at, err := f.Seek(0, 2)
	if err == nil {
		_, err = f.Write(append(raw, '\n'))
	}
	if err != nil {
		f.Truncate(at) // half a line would damage the next one
	}
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write checkpoint: %w", err)
	}
	c.kept = size
	return durable.SyncDir(c.dir)
}

// checkpointsOf opens a log's kept checkpoints and the state's newest one. Those
// that the key did not sign for this log are findings.
func (s *Store) checkpointsOf(c *copyOf) (good []audit.Checkpoint, broken []Finding, err error) {
	c.mu.Lock()
	lines, err := readCheckpoints(c.dir)
	c.mu.Unlock()
	if err != nil {
		return nil, nil, err
	}
	for i, l := range lines {
		var n keptNote
		if err := json.Unmarshal(l, &n); err != nil {
			broken = append(broken, Finding{Why: fmt.Sprintf("line %d of the checkpoints cannot be read", i+1)})
			continue
		}
		p, err := openCheckpoint(c.log, []byte(n.Note), s.key)
		if err != nil || p.Size != n.Size {
			broken = append(broken, Finding{From: n.Size, To: n.Size, Why: "its signed checkpoint does not hold"})
			continue
		}
		good = append(good, p)
	}
	if a, ok := s.cfg.View().Anchor(c.log); ok {
		p, err := openCheckpoint(c.log, a.Note, s.key)
		if err != nil || p.Size != a.Size {
			broken = append(broken, Finding{From: a.Size, To: a.Size, Why: "the signed checkpoint in the cluster's state does not hold"})
		} else {
			good = append(good, p)
		}
	}
	return good, broken, nil
}

// openCheckpoint opens a checkpoint of one log, of whatever name the cluster had
// then.
func openCheckpoint(log string, raw []byte, v note.Verifier) (audit.Checkpoint, error) {
	p, err := audit.OpenCheckpoint(raw, v)
	if err != nil {
		return p, err
	}
	if !strings.HasSuffix(p.Origin, audit.Origin("", log)) {
		return p, fmt.Errorf("%w: it is of %.200q", audit.ErrCheckpoint, p.Origin)
	}
	return p, nil
}
