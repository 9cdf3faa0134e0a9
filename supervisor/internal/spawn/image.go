package spawn

import (
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// maxImage is the largest plugin binary in bytes.
const maxImage = 256 << 20

// image is a sealed copy of a plugin's binary, shared by all processes of the
// digest so that they share its pages.
type image struct {
	file  *os.File
	users int
}

// seal returns the sealed copy with the digest, made from binary if there is
// none yet. What is hashed is the copy, after nobody can change it any more: a
// file that is swapped or rewritten meanwhile makes no difference. The caller
// gives it back by unseal.
func (s *server) seal(binary *os.File, digest string) (*os.File, error) {
	s.mu.Lock()
	if have := s.images[digest]; have != nil {
		have.users++
		s.mu.Unlock()
		return have.file, nil
	}
	s.mu.Unlock()
	f, err := sealedCopy(binary)
	if err != nil {
		return nil, fmt.Errorf("copy the plugin's binary: %w", err)
	}
	if err := check(f, digest); err != nil {
		_ = f.Close()
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if have := s.images[digest]; have != nil { // another start was faster
		_ = f.Close()
		have.users++
		return have.file, nil
	}
	s.images[digest] = &image{file: f, users: 1}
	return f, nil
}

// unseal gives an image back. The one that fell idle last is kept: copying and
// hashing it for every restart of a plugin that crashes would cost the others.
func (s *server) unseal(digest string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	have := s.images[digest]
	if have == nil {
		return
	}
	if have.users--; have.users > 0 || s.idleImage == digest {
		return
	}
	if old := s.images[s.idleImage]; old != nil && old.users == 0 {
		delete(s.images, s.idleImage)
		_ = old.file.Close()
	}
	s.idleImage = digest
}

// sealedCopy is a read-only descriptor of an anonymous, unchangeable copy.
func sealedCopy(binary *os.File) (*os.File, error) {
	const name, flags = "bulkhead-plugin", unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	fd, err := unix.MemfdCreate(name, flags|unix.MFD_EXEC)
	if errors.Is(err, unix.EINVAL) { // before Linux 6.3 all are executable
		fd, err = unix.MemfdCreate(name, flags)
	}
	if err != nil {
		return nil, err
	}
	w := os.NewFile(uintptr(fd), name)
	defer w.Close()
	n, err := io.Copy(w, io.LimitReader(binary, maxImage+1))
	if err != nil {
		return nil, err
	}
	if n > maxImage {
		return nil, fmt.Errorf("it is larger than %d bytes", maxImage)
	}
	if err := w.Chmod(0o555); err != nil {
		return nil, err
	}
	const seals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
	if _, err := unix.FcntlInt(w.Fd(), unix.F_ADD_SEALS, seals); err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	// A file that anybody has open for writing cannot be executed.
	return os.Open("/proc/self/fd/" + strconv.Itoa(int(w.Fd())))
}

// check compares the digest and refuses what could not run in an empty root.
func check(f *os.File, digest string) error {
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return fmt.Errorf("hash the plugin's binary: %w", err)
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != digest {
		return fmt.Errorf("the plugin's binary has the digest %s, %s is registered", got, digest)
	}
	program, err := elf.NewFile(f)
	if err != nil {
		return fmt.Errorf("the plugin's binary is not a program: %w", err)
	}
	for _, p := range program.Progs {
		if p.Type == elf.PT_INTERP {
			return errors.New("the plugin's binary is linked dynamically: build it with CGO_ENABLED=0")
		}
	}
	return nil
}
