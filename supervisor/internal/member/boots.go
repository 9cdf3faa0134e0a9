package member

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/bulkhead-ai/bulkhead/worker/durable"
)

const (
	bootsName = "boots"
	keptBoots = 512 // starts that the disk remembers: enough to reach behind any restored backup
)

// NextBoot names this start of the node, durably before anybody else hears of it,
// and answers the earlier starts that the disk knows of. So a disk that was put
// back to an older state gives itself away: it does not know of the start that the
// cluster remembers.
func (i *Identity) NextBoot() (boot string, earlier []string, err error) {
	path := filepath.Join(i.dir, bootsName)
	raw, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", nil, fmt.Errorf("read the node's starts: %w", err)
	}
	earlier = strings.Fields(string(raw))
	earlier = earlier[max(0, len(earlier)-keptBoots):]
	boot = strings.ToLower(rand.Text())
	if err := durable.Replace(path, []byte(strings.Join(append(earlier, boot), "\n")+"\n")); err != nil {
		return "", nil, fmt.Errorf("note the node's start: %w", err)
	}
	return boot, earlier, nil
}
