package admin

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"net/http"

	"filippo.io/age"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin/wire"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/shares"
	"github.com/danielgtaylor/huma/v2"
	"go.uber.org/zap"
)

// KeyShares are the tenants' key shares, which no snapshot holds. Methods may be
// called concurrently.
type KeyShares interface {
	// Save answers the shares of all live tenants, encrypted, and how many they are.
	Save(ctx context.Context, recipient age.Recipient) (file []byte, n int, err error)
	// Restore stores a batch that was sealed to the cluster. An error says that
	// nothing was done.
	Restore(ctx context.Context, sealed []byte) ([]shares.Restored, error)
}

var _ KeyShares = (*shares.Ring)(nil)

type saveSharesInput struct {
	Body wire.SaveShares
}

type restoreSharesInput struct {
	Body wire.RestoreShares
}

type restoreSharesOutput struct{ Body wire.SharesRestored }

// What the trail keeps of both.
type savedShares struct {
	Recipient string `json:"recipient"`
	Tenants   int    `json:"tenants,omitempty"`
	SHA256    string `json:"sha256,omitempty"` // of the file
}

type returnedShares struct {
	Tenants []string `json:"tenants"`
	Refused []string `json:"refused,omitempty"`
}

func (a *API) shareRoutes() {
	save := operation("save-shares", http.MethodPost, "/cluster/shares/escrow", "Download the tenants' key shares, encrypted: with a snapshot and the cluster key a complete backup")
	save.Responses = map[string]*huma.Response{"200": {
		Description: "an age-encrypted file",
		Content:     map[string]*huma.MediaType{"application/octet-stream": {}},
	}}
	guarded(a, save, aboutSave, a.saveShares)
	restore := operation("restore-shares", http.MethodPut, "/cluster/shares", "Bring key shares of an escrow file back to the members")
	guarded(a, restore, ofPlatform[restoreSharesInput]("the tenants' key shares"), a.restoreShares)
}

func aboutSave(_ context.Context, in *saveSharesInput) (matter, error) {
	m := matter{object: "the tenants' key shares", after: savedShares{Recipient: in.Body.Recipient}}
	if _, err := shares.ParseRecipient(in.Body.Recipient); err != nil {
		return m, invalid("body.recipient", err.Error())
	}
	return m, nil
}

func (a *API) saveShares(ctx context.Context, in *saveSharesInput) (*huma.StreamResponse, error) {
	if a.cfg.Shares == nil {
		return nil, errNoShares()
	}
	recipient, err := shares.ParseRecipient(in.Body.Recipient)
	if err != nil {
		return nil, invalid("body.recipient", err.Error())
	}
	file, n, err := a.cfg.Shares.Save(ctx, recipient)
	if err != nil {
		return nil, a.fail("save key shares", err)
	}
	sum := sha256.Sum256(file)
	noteAfter(ctx, savedShares{in.Body.Recipient, n, hex.EncodeToString(sum[:])})
	a.cfg.Log.Warn("key shares were saved to a file", zap.Int("tenants", n), zap.String("recipient", in.Body.Recipient))
	return &huma.StreamResponse{Body: func(out huma.Context) {
		out.SetHeader("Content-Type", "application/octet-stream")
		if _, err := out.BodyWriter().Write(file); err != nil {
			panic(http.ErrAbortHandler)
		}
	}}, nil
}

func (a *API) restoreShares(ctx context.Context, in *restoreSharesInput) (*restoreSharesOutput, error) {
	if a.cfg.Shares == nil {
		return nil, errNoShares()
	}
	all, err := a.cfg.Shares.Restore(ctx, in.Body.Sealed)
	if err != nil {
		return nil, a.fail("restore key shares", err)
	}
	out := wire.SharesRestored{Shares: make([]wire.RestoredShare, 0, len(all))}
	var noted returnedShares
	for _, s := range all {
		out.Shares = append(out.Shares, wire.RestoredShare{Tenant: string(s.Tenant), ID: s.ID, Error: s.Error})
		if s.Error != "" {
			noted.Refused = append(noted.Refused, string(s.Tenant))
			continue
		}
		noted.Tenants = append(noted.Tenants, string(s.Tenant))
	}
	noteAfter(ctx, noted)
	return &restoreSharesOutput{out}, nil
}

func errNoShares() error { return huma.Error501NotImplemented("this node keeps no key shares") }
