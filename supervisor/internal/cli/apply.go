package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"

	"github.com/bulkhead-ai/bulkhead/configs/manifest"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin/wire"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/seal"
	"github.com/spf13/cobra"
)

// maxCredential bounds a provider credential in bytes.
const maxCredential = 48 << 10

// errManifest marks refused desired state: the command line was right, so the
// exit status is Failed.
var errManifest = errors.New("nothing was applied")

func (a *app) applyCommand() *cobra.Command {
	var files []string
	var body wire.Apply
	c := &cobra.Command{
		Use: "apply -f FILE", Short: "Put desired state in force, all of it or nothing", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if len(files) == 0 {
				return usagef("%s: -f is missing", cmd.CommandPath())
			}
			return a.apply(cmd.Context(), files, body)
		},
	}
	c.Flags().StringArrayVarP(&files, "file", "f", nil, "file of YAML documents, - for standard input; may be repeated")
	c.Flags().BoolVar(&body.Prune, "prune", false, "delete what is in force and in none of the files, except plugins")
	c.Flags().BoolVar(&body.DryRun, "dry-run", false, "only print the plan")
	return c
}

func (a *app) apply(ctx context.Context, files []string, body wire.Apply) error {
	docs, err := a.readManifests(files)
	if err != nil {
		return err
	}
	cl, err := a.client()
	if err != nil {
		return err
	}
	if err := a.sealCredentials(ctx, cl, docs); err != nil {
		return err
	}
	for _, d := range docs {
		body.Objects = append(body.Objects, d.Object)
	}
	var done wire.Applied
	if err := cl.do(ctx, call{method: http.MethodPost, path: "/apply", body: body}, &done); err != nil {
		return locate(err, docs)
	}
	return a.printApplied(done)
}

// readManifests reads all files before anything is sent. An object may stand in
// one of them only.
func (a *app) readManifests(files []string) ([]manifest.Document, error) {
	var all []manifest.Document
	var wrong manifest.Errors
	seen := map[manifest.Ref]bool{}
	for _, name := range files {
		docs, err := a.readManifest(name)
		if es, ok := manifest.AsErrors(err); ok {
			wrong = append(wrong, es...)
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, d := range docs {
			if seen[d.Ref] {
				wrong = append(wrong, d.At("metadata.name", d.Ref.String()+" stands already in another file"))
			}
			seen[d.Ref] = true
		}
		all = append(all, docs...)
	}
	if wrong != nil {
		return nil, fmt.Errorf("%w: %w", errManifest, wrong)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%w: no document in %s", errManifest, strings.Join(files, ", "))
	}
	return all, nil
}

func (a *app) readManifest(name string) ([]manifest.Document, error) {
	if name == "-" {
		return manifest.DecodeDocuments("standard input", a.streams.In)
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("open manifest: %w", err)
	}
	defer f.Close()
	return manifest.DecodeDocuments(name, f)
}

// sealCredentials replaces every named credential by its sealed form. The secret
// is in this process only.
func (a *app) sealCredentials(ctx context.Context, cl *client, docs []manifest.Document) error {
	var key wire.SealingKey
	for _, d := range docs {
		if d.ProviderSpec == nil || d.ProviderSpec.Credential == nil {
			continue
		}
		secret, err := a.secret(d.ProviderSpec.Credential)
		if err != nil {
			return fmt.Errorf("%w: %w", errManifest, manifest.Errors{d.At("spec.credential", err.Error())})
		}
		if key.PublicKey == nil {
			if err := cl.do(ctx, call{method: http.MethodGet, path: "/sealing-key"}, &key); err != nil {
				return err
			}
		}
		sealed, err := seal.Seal(key.PublicKey, seal.CredentialContext(d.Tenant, d.Name), secret)
		if err != nil {
			return fmt.Errorf("seal credential of %s: %w", d.Ref, err)
		}
		d.ProviderSpec.Credential.Sealed = sealed
	}
	return nil
}

func (a *app) secret(c *manifest.Credential) ([]byte, error) {
	source, text := "environment variable "+c.Env, a.streams.Getenv(c.Env)
	if c.File != "" {
		f, err := os.Open(c.File)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		raw, err := io.ReadAll(io.LimitReader(f, maxCredential+2))
		if err != nil {
			return nil, err
		}
		source, text = "file "+c.File, strings.TrimRight(string(raw), "\r\n")
	}
	switch {
	case text == "":
		return nil, fmt.Errorf("%s is empty or not set", source)
	case len(text) > maxCredential:
		return nil, fmt.Errorf("%s holds more than %d bytes", source, maxCredential)
	case strings.ContainsAny(text, "\r\n\x00"):
		return nil, fmt.Errorf("%s holds more than one line; a header cannot carry that", source)
	}
	return []byte(text), nil
}

// locate turns the server's problems, which name objects and fields, into lines
// of the files they came from.
func locate(err error, docs []manifest.Document) error {
	var p *problemError
	if !errors.As(err, &p) || p.Status != http.StatusUnprocessableEntity {
		return err
	}
	var found manifest.Errors
	for _, e := range p.Errors {
		for _, d := range docs {
			if field, ok := strings.CutPrefix(e.Location, d.Ref.String()+": "); ok {
				found = append(found, d.At(field, printable(e.Message)))
			}
		}
	}
	if len(found) < len(p.Errors) || len(found) == 0 {
		return err // something is wrong outside of the files: say it all in the server's words
	}
	return fmt.Errorf("%w: %w", errManifest, found)
}

func (a *app) printApplied(done wire.Applied) error {
	out, err := a.output.or(tableOut, tableOut, jsonOut, yamlOut, csvOut)
	if err != nil {
		return err
	}
	t := table{columns: []string{"action", "kind", "tenant", "project", "name"}}
	for _, part := range []struct {
		action string
		refs   []manifest.Ref
	}{{"created", done.Created}, {"updated", done.Updated}, {"pruned", done.Pruned}, {"unchanged", done.Unchanged}} {
		for _, r := range part.refs {
			t.add(part.action, string(r.Kind), string(r.Tenant), r.Project, r.Name)
		}
	}
	if out != tableOut {
		return a.print(t, done)
	}
	note := ""
	if done.DryRun {
		note = " (dry run: nothing was applied)"
	}
	text := done.Plan.String() + strconv.Itoa(len(done.Created)) + " created, " + strconv.Itoa(len(done.Updated)) + " updated, " +
		strconv.Itoa(len(done.Pruned)) + " pruned, " + strconv.Itoa(len(done.Unchanged)) + " unchanged" + note + "\n"
	return write(a.streams.Out, []byte(text))
}
