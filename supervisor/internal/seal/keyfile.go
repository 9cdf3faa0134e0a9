package seal

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/bulkhead-ai/bulkhead/worker/durable"
	"golang.org/x/sys/unix"
)

// Source says where the cluster key comes from. Exactly one of File and
// Credential is set.
type Source struct {
	File       string // path of the key file, mode 0600 or 0400
	Create     bool   // File only: make a new key when there is no file
	Credential string // name of a systemd credential (LoadCredentialEncrypted=)
}

// maxKeyFile is more than any form of the key needs.
const maxKeyFile = 256

// Load reads the cluster key: 32 raw bytes, 64 hexadecimal digits, or base64.
func (s Source) Load() ([]byte, error) {
	switch {
	case s.File != "" && s.Credential != "":
		return nil, errors.New("cluster key: both a file and a credential are named")
	case s.Credential != "":
		return loadCredential(s.Credential)
	case s.File != "":
		return s.loadFile()
	}
	return nil, errors.New("cluster key: neither a file nor a credential is named")
}

func (s Source) loadFile() ([]byte, error) {
	key, err := readKey(s.File, 0o077)
	if s.Create && errors.Is(err, fs.ErrNotExist) {
		if err := createKey(s.File); err != nil {
			return nil, fmt.Errorf("create cluster key %s: %w", s.File, err)
		}
		key, err = readKey(s.File, 0o077)
	}
	if err != nil {
		return nil, fmt.Errorf("cluster key %s: %w", s.File, err)
	}
	return key, nil
}

// loadCredential reads from the directory that systemd made for this service.
// systemd may grant access by an ACL, which shows as group bits, so only the
// others' bits are checked there.
func loadCredential(name string) ([]byte, error) {
	dir := os.Getenv("CREDENTIALS_DIRECTORY")
	if dir == "" {
		return nil, fmt.Errorf("cluster key credential %s: CREDENTIALS_DIRECTORY is not set, is this a systemd service?", name)
	}
	if name != filepath.Base(name) {
		return nil, fmt.Errorf("cluster key credential %q: not a name", name)
	}
	key, err := readKey(filepath.Join(dir, name), 0o007)
	if err != nil {
		return nil, fmt.Errorf("cluster key credential %s: %w", name, err)
	}
	return key, nil
}

// readKey checks the file it has opened, not its name, so that nobody can swap
// it between the two.
func readKey(path string, forbidden fs.FileMode) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, errors.New("not a regular file")
	}
	if bad := st.Mode().Perm() & forbidden; bad != 0 {
		return nil, fmt.Errorf("mode %04o lets others read it, want 0600", st.Mode().Perm())
	}
	raw, err := io.ReadAll(io.LimitReader(f, maxKeyFile))
	if err != nil {
		return nil, err
	}
	return parseKey(raw)
}

func parseKey(raw []byte) ([]byte, error) {
	if len(raw) == KeySize {
		return raw, checkKey(raw)
	}
	text := string(bytes.TrimSpace(raw))
	key, err := hex.DecodeString(text)
	if err != nil {
		key, err = base64.StdEncoding.DecodeString(text)
	}
	if err != nil {
		return nil, fmt.Errorf("want %d raw bytes, %d hexadecimal digits, or base64", KeySize, 2*KeySize)
	}
	return key, checkKey(key)
}

// checkKey refuses the keys that come from a mistake: missing, cut off, or one
// byte over and over.
func checkKey(key []byte) error {
	if len(key) != KeySize {
		return fmt.Errorf("key has %d bytes, want %d", len(key), KeySize)
	}
	if bytes.Count(key, key[:1]) == KeySize {
		return errors.New("key is one byte repeated")
	}
	return nil
}

// createKey makes a key unless there is one, which then counts.
func createKey(path string) error {
	key := make([]byte, KeySize)
	rand.Read(key)
	defer clear(key)
	if err := WriteKey(path, key); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// WriteKey stores a key, durably and for this user alone. It never replaces one:
// fs.ErrExist.
func WriteKey(path string, key []byte) error {
	if err := checkKey(key); err != nil {
		return fmt.Errorf("store key: %w", err)
	}
	line := append(hex.AppendEncode(nil, key), '\n')
	defer clear(line)
	if err := durable.Create(path, line); err != nil {
		return fmt.Errorf("store key: %w", err)
	}
	return nil
}
