package cli

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin/wire"
	"github.com/bulkhead-ai/bulkhead/worker/durable"
	"github.com/spf13/cobra"
)

// exported says what was taken.
type exported struct {
	Tenant    string `json:"tenant"`
	File      string `json:"file"`
	SHA256    string `json:"sha256"`
	Confirmed bool   `json:"confirmed"` // an erasure that waited for it goes on
}

func tenantPath(name, what string) string { return "/tenants/" + url.PathEscape(name) + "/" + what }

func (a *app) tenantExportCommand() *cobra.Command {
	var recipient, file string
	c := &cobra.Command{
		Use: "export NAME --recipient KEY -f FILE", Short: "Download all that the platform has of a tenant, encrypted to an age key", Args: exactArgs("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := required(cmd, "recipient", "file"); err != nil {
				return err
			}
			cl, err := a.client()
			if err != nil {
				return err
			}
			ctx, name := cmd.Context(), args[0]
			// Before the download: what began earlier may lack the last records.
			waits, err := a.exportWanted(ctx, cl, name, recipient)
			if err != nil {
				return err
			}
			sum, err := a.download(ctx, cl, name, recipient, file)
			if err != nil {
				return err
			}
			if waits {
				if err := confirmExport(ctx, cl, name, sum); err != nil {
					return err
				}
			}
			t := table{columns: []string{"tenant", "file", "sha256", "confirmed"}}
			t.add(name, file, sum, strconv.FormatBool(waits))
			return a.print(t, exported{name, file, sum, waits})
		},
	}
	c.Flags().StringVar(&recipient, "recipient", "", "age public key (required)")
	c.Flags().StringVarP(&file, "file", "f", "", "where the archive goes (required)")
	return c
}

// exportWanted reports whether an erasure waits for this archive now. Who may
// export need not be somebody who may look at plans.
func (a *app) exportWanted(ctx context.Context, cl *client, name, recipient string) (bool, error) {
	end, err := tenantEnd(ctx, cl, name)
	var p *problemError
	if errors.As(err, &p) && (p.Status == http.StatusForbidden || p.Status == http.StatusNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	e := end.Erasure
	return e != nil && e.Step == command.StepExport && e.Recipient == recipient && e.ExportSHA256 == "", nil
}

// download gives the file its name only when it is whole and on disk, and
// answers its SHA-256.
func (a *app) download(ctx context.Context, cl *client, name, recipient, path string) (sum string, err error) {
	f, err := durable.New(path)
	if err != nil {
		return "", fmt.Errorf("create archive: %w", err)
	}
	defer f.Discard()
	hash := sha256.New()
	bar := &received{app: a}
	r := call{method: http.MethodGet, path: tenantPath(name, "export"), query: query("recipient", recipient), seen: bar.expect}
	r.stream = func(body io.Reader) error {
		if err := f.Truncate(0); err != nil { // an address that broke off before
			return err
		}
		if err := rewind(f.File); err != nil {
			return err
		}
		hash.Reset()
		if _, err := io.Copy(io.MultiWriter(f, hash, bar), body); err != nil {
			return fmt.Errorf("export %s: the archive was cut off: %w", name, err)
		}
		return nil
	}
	if err := cl.do(ctx, r, nil); err != nil {
		return "", err
	}
	bar.end()
	if err := f.Commit(); err != nil {
		return "", fmt.Errorf("write archive: %w", err)
	}
	return hex.EncodeToString(hash.Sum(nil)), nil
}

// received draws how much has come of about so much, on a terminal.
type received struct {
	*app
	n, about int64
	shown    int64
}

func (r *received) expect(h http.Header) {
	r.n, r.shown = 0, -1
	r.about, _ = strconv.ParseInt(h.Get(wire.ExpectedBytes), 10, 64)
}

// Write implements io.Writer.
func (r *received) Write(p []byte) (int, error) {
	r.n += int64(len(p))
	r.draw(99) // how much there will be is a guess
	return len(p), nil
}

func (r *received) end() {
	r.about = r.n
	r.draw(100)
	if r.streams.Progress && r.n > 0 {
		fmt.Fprintln(r.streams.Err)
	}
}

func (r *received) draw(most int64) {
	if !r.streams.Progress || r.about <= 0 {
		return
	}
	percent := min(100*r.n/r.about, most)
	if percent == r.shown {
		return
	}
	r.shown = percent
	const width = 40
	done := int(percent) * width / 100
	r.line(fmt.Sprintf("[%s%s] %3d %% %d KiB", strings.Repeat("=", done), strings.Repeat(" ", width-done), percent, r.n>>10))
}
