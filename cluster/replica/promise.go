package replica

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"

	"github.com/bulkhead-ai/bulkhead"
)

// promise is what a keeper must not forget about a tenant, in a file of its own
// beside the receiver (integers big endian):
//
//	 0        4           12      13    16          24    28
//	+--------+-----------+-------+------+-----------+-----+
//	| "BHP1" | epoch (8) | flags | zero | begin (8) | CRC |
//	+--------+-----------+-------+------+-----------+-----+
type promise struct {
	epoch bulkhead.Epoch // nothing of an older one is accepted
	// incomplete: the copy lost something that it had acknowledged; it is not
	// counted before an owner says that it is whole.
	incomplete bool
	// begin is the record with which the copy was begun anew, 0 if it never was:
	// its first groups may speak of older segments that retention has taken since.
	begin uint64
}

const (
	promiseMagic  = "BHP1"
	promiseSize   = 28
	promiseSuffix = ".promise"
	receiverName  = "receiver"
	receiverBytes = 16
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func (p promise) encode() []byte {
	b := append(make([]byte, 0, promiseSize), promiseMagic...)
	b = binary.BigEndian.AppendUint64(b, uint64(p.epoch))
	b = append(b, flags(p.incomplete), 0, 0, 0)
	b = binary.BigEndian.AppendUint64(b, p.begin)
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

func parsePromise(b []byte) (promise, error) {
	if len(b) != promiseSize || string(b[:4]) != promiseMagic ||
		binary.BigEndian.Uint32(b[24:]) != crc32.Checksum(b[:24], castagnoli) || b[12] > 1 {
		return promise{}, fmt.Errorf("%w: promise file is malformed", ErrDamaged)
	}
	return promise{bulkhead.Epoch(binary.BigEndian.Uint64(b[4:])), b[12] == 1, binary.BigEndian.Uint64(b[16:])}, nil
}

// loadPromise reads a tenant's promise; none was made where there is no file.
func loadPromise(dir Dir, tenant bulkhead.TenantID) (promise, error) {
	b, err := readSmall(dir, string(tenant)+promiseSuffix)
	if errors.Is(err, fs.ErrNotExist) {
		return promise{}, nil
	}
	if err != nil {
		return promise{}, fmt.Errorf("read promise: %w", err)
	}
	return parsePromise(b)
}

// save makes the promise durable.
func (p promise) save(dir Dir, tenant bulkhead.TenantID) error {
	if err := writeSmall(dir, string(tenant)+promiseSuffix, p.encode()); err != nil {
		return fmt.Errorf("save promise: %w", err)
	}
	return nil
}

// loadReceiver reads the identity of the disk, or draws one for a disk that has
// none.
func loadReceiver(dir Dir, random io.Reader) (string, error) {
	b, err := readSmall(dir, receiverName)
	if errors.Is(err, fs.ErrNotExist) {
		id := make([]byte, receiverBytes)
		if _, err := io.ReadFull(random, id); err != nil {
			return "", fmt.Errorf("draw receiver identity: %w", err)
		}
		text := hex.EncodeToString(id)
		if err := writeSmall(dir, receiverName, []byte(text)); err != nil {
			return "", fmt.Errorf("save receiver identity: %w", err)
		}
		return text, nil
	}
	if err != nil {
		return "", fmt.Errorf("read receiver identity: %w", err)
	}
	if _, err := hex.DecodeString(string(b)); err != nil || len(b) != 2*receiverBytes {
		return "", fmt.Errorf("%w: receiver identity is malformed; without the file this disk gets a new one", ErrDamaged)
	}
	return string(b), nil
}

func readSmall(dir Dir, name string) ([]byte, error) {
	f, err := dir.Open(name, false)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b := make([]byte, 256)
	n, err := f.ReadAt(b, 0)
	if err != nil && err != io.EOF {
		return nil, err
	}
	return b[:n], nil
}

// writeSmall replaces a file: afterwards it has the old content or the new one,
// and on return the new one is durable.
func writeSmall(dir Dir, name string, b []byte) error {
	f, err := dir.Create(name + ".new")
	if err != nil {
		return err
	}
	if _, err := f.WriteAt(b, 0); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := f.Datasync(); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := dir.Rename(name+".new", name); err != nil {
		return err
	}
	return dir.Sync()
}
