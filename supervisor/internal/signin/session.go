package signin

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/bulkhead-ai/bulkhead/worker/durable"
)

// Session is one sign-in, of the nodes at the addresses that it was made for.
type Session struct {
	Addrs      []string `json:"addrs"` // origins of the admin ports that may see the token
	Issuer     string   `json:"issuer"`
	ClientID   string   `json:"client_id"`
	Scopes     []string `json:"scopes,omitempty"`
	Audience   string   `json:"audience,omitempty"`
	UseIDToken bool     `json:"use_id_token,omitempty"`
	IssuerCA   string   `json:"issuer_ca,omitempty"` // path of PEM certificates
	Token      Token    `json:"token"`
}

// maxSession bounds a session file in bytes.
const maxSession = 256 << 10

// ErrNone says that nobody has signed in.
var ErrNone = errors.New("nobody is signed in")

// Load reads a session file.
func Load(path string) (Session, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Session{}, ErrNone
	}
	if err != nil {
		return Session{}, fmt.Errorf("open session: %w", err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return Session{}, fmt.Errorf("read session: %w", err)
	}
	if !st.Mode().IsRegular() || st.Mode().Perm()&0o077 != 0 {
		return Session{}, fmt.Errorf("session %s: mode %04o, want a regular file with mode 0600", path, st.Mode().Perm())
	}
	raw, err := io.ReadAll(io.LimitReader(f, maxSession))
	if err != nil {
		return Session{}, fmt.Errorf("read session: %w", err)
	}
	var s Session
	if err := json.Unmarshal(raw, &s); err != nil {
		return Session{}, fmt.Errorf("read session %s: %w", path, err)
	}
	return s, nil
}

// Save writes a session file, 0600 in a folder 0700, whole or not at all.
func Save(path string, s Session) error {
	raw, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return fmt.Errorf("encode session: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("make session folder: %w", err)
	}
	if err := durable.Replace(path, append(raw, '\n')); err != nil {
		return fmt.Errorf("write session: %w", err)
	}
	return nil
}

// Forget removes a session file; it is no error that there is none.
func Forget(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove session: %w", err)
	}
	return nil
}
