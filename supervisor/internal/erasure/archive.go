package erasure

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"time"
)

// partSize bounds one file of an archive in bytes, and with it the memory: tar
// wants a file's length before its content, and how long a log is nobody knows
// before it was read.
const partSize = 4 << 20

// archive is a tar file that is being written.
type archive struct {
	tar *tar.Writer
	at  time.Time
}

// file adds one file.
func (a *archive) file(name string, content []byte) error {
	h := &tar.Header{Name: name, Mode: 0o600, Size: int64(len(content)), ModTime: a.at, Format: tar.FormatPAX}
	if err := a.tar.WriteHeader(h); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	if _, err := a.tar.Write(content); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}

// parts adds what fill writes as files stem-000001ext and so on, each cut at the
// end of a line. There is always one, so that nothing looks forgotten.
func (a *archive) parts(stem, ext string, fill func(io.Writer) error) error {
	p := &parts{archive: a, stem: stem, ext: ext}
	if err := fill(p); err != nil {
		return fmt.Errorf("%s: %w", stem, err)
	}
	if len(p.pending) > 0 || p.number == 0 {
		return p.cut(len(p.pending))
	}
	return nil
}

// parts collects lines until they fill a file.
type parts struct {
	archive   *archive
	stem, ext string
	number    int
	pending   []byte
}

// Write implements io.Writer.
func (p *parts) Write(b []byte) (int, error) {
	for rest := b; len(rest) > 0; {
		n := min(len(rest), partSize-len(p.pending))
		p.pending = append(p.pending, rest[:n]...)
		rest = rest[n:]
		if len(p.pending) < partSize {
			break
		}
		end := bytes.LastIndexByte(p.pending, '\n') + 1
		if end == 0 {
			return 0, errors.New("a line is longer than a file may be")
		}
		if err := p.cut(end); err != nil {
			return 0, err
		}
	}
	return len(b), nil
}

// cut writes the first n pending bytes as a file.
func (p *parts) cut(n int) error {
	p.number++
	if err := p.archive.file(fmt.Sprintf("%s-%06d%s", p.stem, p.number, p.ext), p.pending[:n]); err != nil {
		return err
	}
	p.pending = append(p.pending[:0], p.pending[n:]...)
	return nil
}
