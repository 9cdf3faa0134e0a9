package cli

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin/wire"
)

// stepNames are the steps of a plan in their order, for a bar.
func stepNames() []string {
	return []string{
		command.StepDrain, command.StepExport, command.StepRetain, command.StepShred,
		command.StepForget, command.StepSnapshots, command.StepCertify, command.StepDone,
	}
}

// draw draws how far the plan is, on a terminal.
func (d *deletion) draw(e *wire.Erasure) {
	if !d.streams.Progress {
		return
	}
	const width = 24
	at, steps := 0, stepNames()
	for i, s := range steps {
		if s == e.Step {
			at = i
		}
	}
	done := at * width / (len(steps) - 1)
	text := e.Step
	if e.Waiting != "" {
		text += ": " + printable(e.Waiting)
	}
	d.line(fmt.Sprintf("[%s%s] %d/%d %.100s", strings.Repeat("=", done), strings.Repeat(" ", width-done), at, len(steps)-1, text))
	if e.Step == command.StepDone {
		fmt.Fprintln(d.streams.Err)
	}
}

// line replaces the present line of a terminal.
func (a *app) line(text string) {
	if a.streams.Progress {
		fmt.Fprint(a.streams.Err, "\r\x1b[K"+text)
	}
}

// takeArchive downloads the archive that the plan waits for, and says so.
func (d *deletion) takeArchive(ctx context.Context, e *wire.Erasure) error {
	sum, err := d.download(ctx, d.cl, d.name, e.Recipient, d.file)
	if err != nil {
		return err
	}
	return confirmExport(ctx, d.cl, d.name, sum)
}

func confirmExport(ctx context.Context, cl *client, name, sum string) error {
	r := call{method: http.MethodPost, path: tenantPath(name, "export"), body: wire.ConfirmExport{SHA256: sum}}
	if err := cl.do(ctx, r, nil); err != nil {
		return fmt.Errorf("the archive is here, but the plan does not know it: %w", err)
	}
	return nil
}

// finished is what a program gets of a deletion that is done.
type finished struct {
	Erasure     *wire.Erasure `json:"erasure"`
	Certificate string        `json:"certificate"`
	Key         string        `json:"key"`
}

// certified prints the certificate.
func (d *deletion) certified(ctx context.Context, e *wire.Erasure) error {
	var c wire.Certificate
	if err := d.cl.do(ctx, call{method: http.MethodGet, path: d.path("certificate")}, &c); err != nil {
		return err
	}
	switch d.output {
	case jsonOut:
		return writeJSON(d.streams.Out, finished{e, c.Certificate, c.Key})
	case yamlOut:
		return writeYAML(d.streams.Out, finished{e, c.Certificate, c.Key})
	}
	_, err := io.WriteString(d.streams.Out, c.Certificate)
	return err
}
