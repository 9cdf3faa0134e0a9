package erasure

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"filippo.io/age"
	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/audit"
	"github.com/bulkhead-ai/bulkhead/cluster/state"
)

// Workers reaches the query sockets of the tenants' workers.
type Workers interface {
	// Query answers a client that reaches the tenant's worker under any host
	// name, and what releases it. It starts the worker if need be.
	Query(ctx context.Context, tenant bulkhead.TenantID) (*http.Client, func(), error)
}

// AuditLogs are the records of the audit trail; see trail.Store.
type AuditLogs interface {
	// Export writes a log so that it verifies offline. A log that does not exist
	// is a *bulkhead.Error of kind NotFound, before anything is written.
	Export(ctx context.Context, log string, w io.Writer) error
}

// ExporterConfig holds what an Exporter works with.
type ExporterConfig struct {
	Cluster     interface{ State() *state.State }
	Workers     Workers
	Audit       AuditLogs // nil leaves the audit log out
	VerifierKey string    // of certificates
}

// Exporter hands out what is left of tenants: their data to their owners, and
// the key that certificates are verified with. Its methods may be called
// concurrently.
type Exporter struct {
	cfg  ExporterConfig
	page int // receipts asked for at once
}

// NewExporter makes an exporter.
func NewExporter(cfg ExporterConfig) *Exporter { return &Exporter{cfg, pageLines} }

// VerifierKey is the public key of certificates, as VerifyCertificate reads it.
func (e *Exporter) VerifierKey() string { return e.cfg.VerifierKey }

// What a record takes in an archive, roughly: bytes.
const (
	bytesPerRequest = 900
	bytesPerEvent   = 700
	bytesAtLeast    = 16 << 10
)

// Expected is about how many bytes the archive will have, for a progress bar.
func (e *Exporter) Expected(tenant bulkhead.TenantID) int64 {
	view := e.cfg.Cluster.State().View()
	t, _ := view.Tenant(tenant)
	log, _ := view.AuditLog(audit.TenantLog(tenant))
	return bytesAtLeast + int64(t.TreeSize)*bytesPerRequest + int64(log.Size)*bytesPerEvent
}

// CheckRecipient refuses what is no age X25519 public key.
func CheckRecipient(recipient string) error {
	_, err := recipientOf(recipient)
	return err
}

func recipientOf(s string) (age.Recipient, error) {
	r, err := age.ParseX25519Recipient(s)
	if err != nil {
		e := bulkhead.E(bulkhead.InvalidRequest, "invalid_recipient", "recipient: want an age public key such as age1...") // not err: it repeats what may be a secret key
		e.Param = "recipient"
		return nil, e
	}
	return r, nil
}

// Export writes everything that the platform has of a tenant as a tar archive,
// encrypted to the recipient while it is written: nothing of it is on a disk of
// the node, and at most a few megabytes are in memory. Only a whole archive
// decrypts to its end; after an error what was written is none. It may be
// repeated; two archives of the same data differ.
//
// Credentials of providers, keys and their hashes are never in it.
func (e *Exporter) Export(ctx context.Context, w io.Writer, tenant bulkhead.TenantID, recipient string) error {
	to, err := recipientOf(recipient)
	if err != nil {
		return err
	}
	view := e.cfg.Cluster.State().View()
	t, ok := view.Tenant(tenant)
	if !ok {
		return bulkhead.E(bulkhead.NotFound, "tenant_not_found", "There is no tenant "+string(tenant)+".")
	}
	pages := &logPages{tenant: tenant, lines: e.page}
	if t.Epoch != 0 { // before anything is written: an error can still be answered in words
		client, release, err := e.cfg.Workers.Query(ctx, tenant)
		if err != nil {
			return fmt.Errorf("export %s: %w", tenant, err)
		}
		defer release()
		pages.client = client
	}
	sealed, err := age.Encrypt(w, to)
	if err != nil {
		return fmt.Errorf("encrypt export of %s: %w", tenant, err)
	}
	out := &archive{tar: tar.NewWriter(sealed), at: view.Time()}
	if err := e.fill(ctx, out, view, tenant, pages); err != nil {
		return fmt.Errorf("export %s: %w", tenant, err)
	}
	if err := errors.Join(out.tar.Close(), sealed.Close()); err != nil {
		return fmt.Errorf("end export of %s: %w", tenant, err)
	}
	return nil
}

// fill writes the files of the archive.
func (e *Exporter) fill(ctx context.Context, out *archive, view *state.View, id bulkhead.TenantID, pages *logPages) error {
	if err := out.file("README.txt", []byte(readme(id, view))); err != nil {
		return err
	}
	if err := out.parts("objects", ".yaml", func(w io.Writer) error { return writeObjects(w, view, id) }); err != nil {
		return err
	}
	if err := out.parts("keys", ".csv", func(w io.Writer) error { return writeKeys(w, view, id) }); err != nil {
		return err
	}
	if err := out.parts("usage", ".ndjson", func(w io.Writer) error { return writeUsage(w, view, id) }); err != nil {
		return err
	}
	if e.cfg.Audit != nil {
		name := audit.TenantLog(id)
		if err := out.parts("audit", ".ndjson", func(w io.Writer) error {
			err := e.cfg.Audit.Export(ctx, name, w)
			if err != nil && bulkhead.AsError(err).Kind == bulkhead.NotFound {
				return nil
			}
			return err
		}); err != nil {
			return err
		}
	}
	if pages.client == nil { // no worker ever ran, so there is nothing to read
		return nil
	}
	return out.parts("requests", ".ndjson", func(w io.Writer) error { return pages.write(ctx, w) })
}

func readme(tenant bulkhead.TenantID, view *state.View) string {
	return fmt.Sprintf(`Export of tenant %s from Bulkhead, as of %s.

objects-*.yaml     desired state: tenant, projects, service accounts, providers, routes, policies (no credentials)
keys-*.csv         API keys by id: place, owner, scopes, life; never the keys or their hashes
usage-*.ndjson     sums of the bill: one object per project, environment, service account, key, model, day and currency
audit-*.ndjson     the tenant's audit log, oldest first, with its signed end; it verifies offline with bulkhead audit verify
requests-*.ndjson  the tenant's request log, newest first, one signed-for receipt a line

Long lists are cut into numbered parts at the end of a line; put them together in the order of their names.
`, tenant, view.Time().UTC().Format("2006-01-02T15:04:05Z"))
}
