package logbook

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// sealFile names the file that a clean Close leaves: a line with the HMAC-SHA-256
// (hex) of the rest, then a JSON object from file name to size and CRC-32C. It
// is deleted before the store is opened, so it exists only while nothing may
// write to the others.
const sealFile = "SEAL"

type fileSum struct {
	Size int64  `json:"size"`
	CRC  uint32 `json:"crc32c"`
}

// writeSeal describes the files of a closed store.
func writeSeal(dir string, key []byte) error {
	sums, err := sumFiles(dir)
	if err != nil {
		return err
	}
	body, err := json.Marshal(sums)
	if err != nil {
		return err
	}
	text := fmt.Appendf(nil, "%x\n%s", sealMAC(key, body), body)
	return os.WriteFile(filepath.Join(dir, sealFile), text, 0o600)
}

// verifySeal removes the seal and reports whether the files are what it says.
func verifySeal(dir string, key []byte) error {
	path := filepath.Join(dir, sealFile)
	text, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("not closed cleanly: %w", err)
	}
	if err := os.Remove(path); err != nil {
		return err
	}
	const macLen = 2 * sha256.Size
	if len(text) <= macLen || string(text[:macLen]) != fmt.Sprintf("%x", sealMAC(key, text[macLen+1:])) {
		return fmt.Errorf("%w: its seal is not authentic", errDamaged)
	}
	var want map[string]fileSum
	if err := json.Unmarshal(text[macLen+1:], &want); err != nil {
		return fmt.Errorf("%w: seal: %w", errDamaged, err)
	}
	have, err := sumFiles(dir)
	if err != nil {
		return err
	}
	for name, sum := range want {
		if have[name] != sum {
			return fmt.Errorf("%w: file %s was changed", errDamaged, name)
		}
		delete(have, name)
	}
	for name := range have {
		return fmt.Errorf("%w: file %s was added", errDamaged, name)
	}
	return nil
}

func sealMAC(key, body []byte) []byte {
	k, err := hkdf.Key(sha256.New, key, nil, "bulkhead logbook v1 seal", 32)
	if err != nil {
		panic("internal error: derive seal key: " + err.Error())
	}
	m := hmac.New(sha256.New, k)
	m.Write(body)
	return m.Sum(nil)
}

func sumFiles(dir string) (map[string]fileSum, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	sums := make(map[string]fileSum, len(entries))
	for _, e := range entries {
		if e.Name() == "LOCK" { // Badger's lock file: it holds a process id
			continue
		}
		sum, err := sumFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return nil, err
		}
		sums[e.Name()] = sum
	}
	return sums, nil
}

func sumFile(path string) (fileSum, error) {
	f, err := os.Open(path)
	if err != nil {
		return fileSum{}, err
	}
	defer f.Close()
	h := crc32.New(crc32.MakeTable(crc32.Castagnoli))
	n, err := io.CopyBuffer(struct{ io.Writer }{h}, f, make([]byte, 128<<10))
	return fileSum{n, h.Sum32()}, err
}

// wipe deletes the store's directory and makes it anew.
func wipe(dir string) error {
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("delete logbook: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make logbook directory: %w", err)
	}
	return os.Chmod(dir, 0o700)
}

// checkSpace refuses when Badger could run into the end of the disk: it writes
// through a sparse memory map, where ENOSPC is a fatal signal.
func checkSpace(dir string, minFree int64) error {
	if minFree < 0 {
		return nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make logbook directory: %w", err)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return fmt.Errorf("statfs %s: %w", dir, err)
	}
	if free := int64(st.Bavail) * st.Bsize; free < 2*(numMemtables*memtableBytes+vlogBytes)+minFree {
		return fmt.Errorf("%w: %d bytes are free", ErrLowSpace, free)
	}
	return nil
}

// checkUmask refuses a umask under which Badger would make files that others
// can read: it creates them with mode 0644 or 0666.
func checkUmask(dir string) error {
	f, err := os.OpenFile(filepath.Join(dir, "umask"), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o666)
	if err != nil {
		return err
	}
	st, err := f.Stat()
	err = errors.Join(err, f.Close(), os.Remove(f.Name()))
	if err == nil && st.Mode().Perm()&0o077 != 0 {
		err = fmt.Errorf("the umask cannot be set and lets others read the logbook: new files get mode %v", st.Mode().Perm())
	}
	return err
}
