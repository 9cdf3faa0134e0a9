package cluster

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// A saved snapshot is this header and the state's snapshot. Integers are big
// endian; the CRC-32C covers the header before it.
//
//	+----------+---------+----------------+------------+-------+---------+------+---------+-----+
//	| BHBACKUP | version | length of id   | cluster id | index | time ms | size | SHA-256 | CRC |
//	| 8        | 2       | 2              | ...        | 8     | 8       | 8    | 32      | 4   |
//	+----------+---------+----------------+------------+-------+---------+------+---------+-----+
const (
	backupMagic   = "BHBACKUP"
	backupVersion = 1
	backupPrefix  = 12
	backupFixed   = 8 + 8 + 8 + 32 + 4
	maxClusterID  = 256
)

type backupHeader struct {
	cluster string
	index   uint64
	at      int64 // Unix milliseconds
	size    int64 // bytes of the state
	sum     [32]byte
}

func (h *backupHeader) encode() []byte {
	b := []byte(backupMagic)
	b = binary.BigEndian.AppendUint16(b, backupVersion)
	b = binary.BigEndian.AppendUint16(b, uint16(len(h.cluster)))
	b = append(b, h.cluster...)
	b = binary.BigEndian.AppendUint64(b, h.index)
	b = binary.BigEndian.AppendUint64(b, uint64(h.at))
	b = binary.BigEndian.AppendUint64(b, uint64(h.size))
	b = append(b, h.sum[:]...)
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
}

func readBackupHeader(r io.Reader) (h backupHeader, err error) {
	b := make([]byte, backupPrefix, backupPrefix+maxClusterID+backupFixed)
	if _, err := io.ReadFull(r, b); err != nil {
		return h, fmt.Errorf("read header: %w", err)
	}
	if string(b[:8]) != backupMagic {
		return h, errors.New("not a snapshot of this program")
	}
	if v := binary.BigEndian.Uint16(b[8:]); v != backupVersion {
		return h, fmt.Errorf("version %d is not known to this build", v)
	}
	id := int(binary.BigEndian.Uint16(b[10:]))
	if id > maxClusterID {
		return h, fmt.Errorf("cluster id of %d bytes", id)
	}
	b = b[:backupPrefix+id+backupFixed]
	if _, err := io.ReadFull(r, b[backupPrefix:]); err != nil {
		return h, fmt.Errorf("read header: %w", err)
	}
	end := len(b) - 4
	if crc32.Checksum(b[:end], crc32.MakeTable(crc32.Castagnoli)) != binary.BigEndian.Uint32(b[end:]) {
		return h, errors.New("the header is damaged")
	}
	f := b[backupPrefix+id:]
	h.cluster = string(b[backupPrefix : backupPrefix+id])
	h.index = binary.BigEndian.Uint64(f)
	h.at = int64(binary.BigEndian.Uint64(f[8:]))
	h.size = int64(binary.BigEndian.Uint64(f[16:]))
	h.sum = [32]byte(f[24:56])
	if h.size < 0 {
		return h, errors.New("negative size")
	}
	return h, nil
}
