package cli

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"

	"filippo.io/age"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin/wire"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/shares"
	"github.com/bulkhead-ai/bulkhead/worker/durable"
	"github.com/spf13/cobra"
)

// ageHeader begins every age file.
const ageHeader = "age-encryption.org/v1\n"

// maxIdentities bounds a file of age identities in bytes.
const maxIdentities = 64 << 10

func (a *app) sharesCommand() *cobra.Command {
	return group("shares", "Save and restore the tenants' key shares, which no snapshot holds",
		a.sharesSaveCommand(), a.sharesRestoreCommand())
}

// savedShares is what save prints.
type savedShares struct {
	File   string `json:"file"`
	Size   int    `json:"size"`
	SHA256 string `json:"sha256"`
}

func (a *app) sharesSaveCommand() *cobra.Command {
	var recipient, file string
	c := &cobra.Command{
		Use: "save --recipient age1... -f FILE", Short: "Write the key shares of all tenants to an encrypted file",
		Long: "Write the key shares of all tenants to a file that only the owner of the age key reads.\n" +
			"A snapshot, this file and the cluster key are a complete backup together, so keep the three apart. A tenant that is\n" +
			"erased later can be read again with all three: destroy the files that are older than the erasure.",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if file == "" {
				return usagef("%s: -f is missing", cmd.CommandPath())
			}
			if _, err := shares.ParseRecipient(recipient); err != nil {
				return usagef("--recipient: %w", err)
			}
			cl, err := a.client()
			if err != nil {
				return err
			}
			saved, err := saveShares(cmd.Context(), cl, recipient, file)
			if err != nil {
				return err
			}
			t := table{columns: []string{"file", "size", "sha256"}}
			t.add(saved.File, strconv.Itoa(saved.Size), saved.SHA256)
			return a.print(t, saved)
		},
	}
	c.Flags().StringVar(&recipient, "recipient", "", "age public key that the file is encrypted to")
	c.Flags().StringVarP(&file, "file", "f", "", "file to write")
	return c
}

// saveShares gives the file its name only when it is whole and on disk.
func saveShares(ctx context.Context, cl *client, recipient, path string) (out savedShares, err error) {
	var body bytes.Buffer
	take := func(r io.Reader) error {
		body.Reset() // of an address that failed midway
		_, err := io.Copy(&body, io.LimitReader(r, maxAnswer))
		return err
	}
	r := call{method: http.MethodPost, path: "/cluster/shares/escrow", body: wire.SaveShares{Recipient: recipient}, stream: take}
	if err := cl.do(ctx, r, nil); err != nil {
		return out, err
	}
	if !bytes.HasPrefix(body.Bytes(), []byte(ageHeader)) {
		return out, errors.New("save key shares: the answer is no age file")
	}
	if err := durable.Replace(path, body.Bytes()); err != nil {
		return out, fmt.Errorf("save key shares: %w", err)
	}
	sum := sha256.Sum256(body.Bytes())
	return savedShares{path, body.Len(), hex.EncodeToString(sum[:])}, nil
}

func (a *app) sharesRestoreCommand() *cobra.Command {
	var file, identity string
	c := &cobra.Command{
		Use: "restore -f FILE --identity KEYFILE", Short: "Bring the key shares of a file back to the members", Args: noArgs,
		Long: "Bring the key shares of a file back to the members, after a snapshot was restored on new machines.\n" +
			"The file is decrypted here; what is sent is sealed to the cluster. Shares that were destroyed are refused.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if file == "" || identity == "" {
				return usagef("%s: want -f FILE and --identity KEYFILE", cmd.CommandPath())
			}
			all, err := readShares(file, identity)
			if err != nil {
				return err
			}
			defer all.Wipe()
			cl, err := a.client()
			if err != nil {
				return err
			}
			return a.restoreShares(cmd.Context(), cl, all)
		},
	}
	c.Flags().StringVarP(&file, "file", "f", "", "file that `bulkhead cluster shares save` wrote")
	c.Flags().StringVar(&identity, "identity", "", "file of the age private key")
	return c
}

func readShares(file, identity string) (*shares.Escrow, error) {
	keys, err := os.Open(identity)
	if err != nil {
		return nil, fmt.Errorf("open identity: %w", err)
	}
	defer keys.Close()
	identities, err := age.ParseIdentities(io.LimitReader(keys, maxIdentities))
	if err != nil {
		return nil, fmt.Errorf("identity %s: no age private key in it: %w", identity, err)
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("open key shares: %w", err)
	}
	defer f.Close()
	return shares.ReadEscrow(f, identities...)
}

// restoreShares fails when any share was refused, after it has told of all.
func (a *app) restoreShares(ctx context.Context, cl *client, all *shares.Escrow) error {
	var key wire.SealingKey
	if err := cl.do(ctx, call{method: http.MethodGet, path: "/sealing-key"}, &key); err != nil {
		return err
	}
	batches, err := all.Seal(key.PublicKey)
	if err != nil {
		return err
	}
	done := wire.SharesRestored{Shares: []wire.RestoredShare{}}
	for _, sealed := range batches {
		var part wire.SharesRestored
		r := call{method: http.MethodPut, path: "/cluster/shares", body: wire.RestoreShares{Sealed: sealed}}
		if err := cl.do(ctx, r, &part); err != nil {
			return fmt.Errorf("after %d of %d key shares: %w", len(done.Shares), len(all.Shares), err)
		}
		done.Shares = append(done.Shares, part.Shares...)
	}
	refused := 0
	t := table{columns: []string{"tenant", "share", "restored"}}
	for _, s := range done.Shares {
		if s.Error != "" {
			refused++
		}
		t.add(s.Tenant, s.ID, firstOf(s.Error, "yes"))
	}
	if err := a.print(t, done); err != nil {
		return err
	}
	if refused > 0 {
		return fmt.Errorf("%d of %d key shares were not restored", refused, len(done.Shares))
	}
	return nil
}
