package wire

import (
	"bytes"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// maxTokenFile bounds a token file in bytes.
const maxTokenFile = 1024

// ReadToken reads the text of a token file. It checks the file that it opened,
// so that nobody can swap it in between.
func ReadToken(path string) (string, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return "", fmt.Errorf("open token file: %w", err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return "", fmt.Errorf("read token file: %w", err)
	}
	if !st.Mode().IsRegular() || st.Mode().Perm()&0o077 != 0 {
		return "", fmt.Errorf("token file %s: mode %04o, want a regular file with mode 0600", path, st.Mode().Perm())
	}
	raw, err := io.ReadAll(io.LimitReader(f, maxTokenFile))
	if err != nil {
		return "", fmt.Errorf("read token file: %w", err)
	}
	return string(bytes.TrimSpace(raw)), nil
}
