package audit

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/bulkhead-ai/bulkhead/worker/receipt"
	"golang.org/x/mod/sumdb/note"
)

// ErrCheckpoint says that a note is not a checkpoint that the key signed.
var ErrCheckpoint = errors.New("not a checkpoint of this signer")

const maxSize = 1 << 62 // records of a log

// Checkpoint says what a log was at one size.
type Checkpoint struct {
	Origin string // which log, see Origin
	Size   uint64
	Root   receipt.Hash
}

// Origin names a log in its checkpoints. Of two clusters no two logs have one
// name, as long as the clusters have not.
func Origin(cluster, log string) string { return cluster + "/audit/" + log }

// SignCheckpoint writes a checkpoint as a C2SP tlog-checkpoint: a signed note of
// the origin, the size in decimal and the root in base64, a line each.
func SignCheckpoint(signer note.Signer, origin string, size uint64, root receipt.Hash) ([]byte, error) {
	if origin == "" || strings.ContainsAny(origin, "\n\r") || size > maxSize {
		return nil, fmt.Errorf("sign checkpoint of %q: no such log", origin)
	}
	text := origin + "\n" + strconv.FormatUint(size, 10) + "\n" + base64.StdEncoding.EncodeToString(root[:]) + "\n"
	raw, err := note.Sign(&note.Note{Text: text}, signer)
	if err != nil {
		return nil, fmt.Errorf("sign checkpoint of %s: %w", origin, err)
	}
	return raw, nil
}

// OpenCheckpoint checks the signature and reads the checkpoint. Whoever calls it
// must compare Origin with the log that is meant. Errors wrap ErrCheckpoint.
func OpenCheckpoint(raw []byte, verifier note.Verifier) (Checkpoint, error) {
	n, err := note.Open(raw, note.VerifierList(verifier))
	if err != nil {
		return Checkpoint{}, fmt.Errorf("%w: %w", ErrCheckpoint, err)
	}
	lines := strings.Split(n.Text, "\n")
	if len(lines) != 4 || lines[0] == "" || lines[3] != "" {
		return Checkpoint{}, fmt.Errorf("%w: want origin, size and root", ErrCheckpoint)
	}
	size, err := strconv.ParseUint(lines[1], 10, 64)
	if err != nil || size > maxSize || strconv.FormatUint(size, 10) != lines[1] {
		return Checkpoint{}, fmt.Errorf("%w: size", ErrCheckpoint)
	}
	root, err := base64.StdEncoding.Strict().DecodeString(lines[2])
	if err != nil || len(root) != len(receipt.Hash{}) {
		return Checkpoint{}, fmt.Errorf("%w: root", ErrCheckpoint)
	}
	return Checkpoint{Origin: lines[0], Size: size, Root: receipt.Hash(root)}, nil
}
