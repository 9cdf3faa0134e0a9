package seal

import (
	"context"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"fmt"

	"github.com/bulkhead-ai/bulkhead"
)

// ShareSize is the length of a key share in bytes.
const ShareSize = 32

// NewShare draws a key share.
func NewShare() []byte {
	share := make([]byte, ShareSize)
	rand.Read(share)
	return share
}

// ShareID names a key share without telling it: its SHA-256.
func ShareID(share []byte) []byte {
	id := sha256.Sum256(share)
	return id[:]
}

// NewDataKey makes a data key for a tenant: the key itself and its wrapped form
// for the cluster state, which opens with the cluster key and the share, and
// with neither alone.
func (b *Box) NewDataKey(ctx context.Context, tenant bulkhead.TenantID, share []byte) (key, wrapped []byte, err error) {
	lock, aad, err := b.shareRoot(tenant, share)
	if err != nil {
		return nil, nil, err
	}
	key = make([]byte, KeySize)
	rand.Read(key)
	inner, err := lock.Encrypt(ctx, key, aad)
	if err == nil {
		wrapped, err = b.root.Encrypt(ctx, inner, aad)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("wrap data key of %s: %w", tenant, err)
	}
	return key, wrapped, nil
}

// UnwrapDataKey opens a tenant's wrapped data key.
func (b *Box) UnwrapDataKey(ctx context.Context, tenant bulkhead.TenantID, wrapped, share []byte) ([]byte, error) {
	lock, aad, err := b.shareRoot(tenant, share)
	if err != nil {
		return nil, err
	}
	inner, err := b.root.Decrypt(ctx, wrapped, aad)
	if err != nil {
		return nil, fmt.Errorf("unwrap data key of %s: %w", tenant, err)
	}
	key, err := lock.Decrypt(ctx, inner, aad)
	if err == nil {
		err = checkKey(key)
	}
	if err != nil {
		return nil, fmt.Errorf("unwrap data key of %s: %w", tenant, err)
	}
	return key, nil
}

// shareRoot is the inner of the two locks on a tenant's data key. They are nested,
// and not one key made of both secrets, because a Root gives its key to nobody.
//
// A tenant's name cannot hold a NUL and the share's id has a fixed length, so no
// two sets of names run into one another in the additional data.
func (b *Box) shareRoot(tenant bulkhead.TenantID, share []byte) (lock *keyRoot, aad []byte, err error) {
	if !bulkhead.ValidName(string(tenant)) {
		return nil, nil, fmt.Errorf("data key: tenant %q is not a name", tenant)
	}
	if len(share) != ShareSize {
		return nil, nil, fmt.Errorf("data key of %s: a key share has %d bytes, not %d", tenant, ShareSize, len(share))
	}
	key, err := hkdf.Key(sha256.New, share, []byte(b.cluster), "bulkhead/share/v1", KeySize)
	if err != nil {
		return nil, nil, fmt.Errorf("derive key of the share: %w", err)
	}
	defer clear(key)
	if lock, err = newKeyRoot(key); err != nil {
		return nil, nil, err
	}
	aad = append([]byte("bulkhead/data-key/v1\x00"+string(tenant)+"\x00"), ShareID(share)...)
	return lock, append(aad, b.cluster...), nil
}
