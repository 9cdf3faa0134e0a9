package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin/wire"
	"github.com/spf13/cobra"
)

// deletion is one run of tenant delete.
type deletion struct {
	*app
	cl   *client
	name string

	yes, wait, cancel bool
	recipient, file   string
	notBefore         string
	patience          time.Duration
}

func (a *app) tenantDeleteCommand() *cobra.Command {
	d := &deletion{app: a}
	c := &cobra.Command{
		Use:   "delete NAME --reason WHY [--yes]",
		Short: "End a tenant's access at once and make its data unreadable for ever, with a certificate",
		Long: "End a tenant's access at once and make its data unreadable for ever, with a certificate.\n\n" +
			"It is a plan of steps that goes on by itself: the same command again shows the plan that runs. It exits with 0\n" +
			"when all is done, or when the plan stands as it was told to: for a retention date, a legal hold, or an archive\n" +
			"that somebody else takes (with --wait it waits for these too).",
		Args: exactArgs("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			d.name = args[0]
			return d.run(cmd)
		},
	}
	f := c.Flags()
	f.BoolVar(&d.yes, "yes", false, "do not ask")
	f.BoolVar(&d.wait, "wait", false, "wait for a retention date, a hold and somebody else's export too")
	f.BoolVar(&d.cancel, "cancel", false, "give a plan up that has not begun to destroy; keys stay revoked")
	f.StringVar(&d.recipient, "recipient", "", "age public key: destroy nothing before an archive encrypted to it was taken")
	f.StringVar(&d.file, "export", "", "take that archive here, into this file")
	f.StringVar(&d.notBefore, "not-before", "", "keep the data until this day (YYYY-MM-DD, UTC) or time (RFC 3339)")
	f.DurationVar(&d.patience, "timeout", 30*time.Minute, "longest wait; the plan itself goes on")
	return c
}

func (d *deletion) run(cmd *cobra.Command) error {
	if _, err := d.output.or(tableOut, tableOut, jsonOut, yamlOut); err != nil {
		return err
	}
	if d.file != "" && d.recipient == "" {
		return usagef("%s: --export needs --recipient: the archive is encrypted to it", cmd.CommandPath())
	}
	body, err := d.request()
	if err != nil {
		return err
	}
	if d.cl, err = d.client(); err != nil {
		return err
	}
	if d.cancel {
		if err := d.needReason(cmd); err != nil {
			return err
		}
		return d.cl.do(cmd.Context(), call{method: http.MethodDelete, path: d.path("erasure")}, nil)
	}
	end, err := tenantEnd(cmd.Context(), d.cl, d.name)
	if err != nil {
		return err
	}
	if e := end.Erasure; !end.Exists || e != nil && e.Step != command.StepDone {
		return d.follow(cmd.Context(), end)
	}
	if err := d.needReason(cmd); err != nil {
		return err
	}
	if err := d.ask(&end, &body); err != nil {
		return err
	}
	var e wire.Erasure
	if err := d.cl.do(cmd.Context(), call{method: http.MethodPost, path: d.path("erasure"), body: body}, &e); err != nil {
		return err
	}
	end.Erasure = &e
	return d.follow(cmd.Context(), end)
}

func (d *deletion) path(what string) string {
	return tenantPath(d.name, what)
}

func (d *deletion) request() (wire.BeginErasure, error) {
	b := wire.BeginErasure{Recipient: d.recipient}
	if d.notBefore == "" {
		return b, nil
	}
	for _, form := range []string{time.DateOnly, time.RFC3339} {
		if t, err := time.Parse(form, d.notBefore); err == nil {
			b.NotBefore = t
			return b, nil
		}
	}
	return b, usagef("--not-before: want YYYY-MM-DD or a time such as 2027-01-31T00:00:00Z")
}

// ask shows what will happen and wants the tenant's name typed, unless --yes was
// given. Nobody is asked in a pipe.
func (d *deletion) ask(end *wire.TenantEnd, b *wire.BeginErasure) error {
	if d.yes {
		return nil
	}
	x := end.Extent
	w := d.streams.Err
	fmt.Fprintf(w, "Tenant %s will be erased. There is no way back.\n\n", printable(d.name))
	fmt.Fprintf(w, "  ends at once    %d API keys; every request is refused\n", x.Keys)
	if b.Recipient != "" {
		fmt.Fprintf(w, "  waits for       an archive encrypted to %s\n", printable(b.Recipient))
	}
	if !b.NotBefore.IsZero() {
		fmt.Fprintf(w, "  waits until     %s\n", b.NotBefore.UTC().Format(stampFormat))
	}
	if end.Hold != "" {
		fmt.Fprintf(w, "  is refused      while there is a legal hold: %s\n", printable(end.Hold))
	}
	fmt.Fprintf(w, "  is destroyed    the log of %d requests and the key to every copy of it, on %s; %d objects\n", x.Requests, strings.Join(x.Nodes, ", "), x.Objects)
	fmt.Fprintf(w, "  stays           %d usage rows, %d audit events, the certificate\n", x.Rows, x.Events)
	fmt.Fprintf(w, "  is out of reach exports, escrowed key shares and images of disks\n\n")
	if !d.interactive() {
		return errors.New("nothing was done: say --yes, or run it on a terminal and confirm")
	}
	fmt.Fprint(w, "Type the tenant's name to go on: ")
	answer, err := bufio.NewReader(d.streams.In).ReadString('\n')
	if strings.TrimSpace(answer) != d.name {
		return errors.Join(errors.New("nothing was done: that is not the tenant's name"), ignoreEOF(err))
	}
	return nil
}

// ignoreEOF: an answer may end without a newline.
func ignoreEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// interactive reports whether a person reads and answers.
func (d *deletion) interactive() bool {
	if !d.streams.Progress {
		return false
	}
	f, ok := d.streams.In.(*os.File)
	if !ok {
		return true
	}
	st, err := f.Stat()
	return err == nil && st.Mode()&os.ModeCharDevice != 0
}

// follow shows the plan until it is done or stands.
func (d *deletion) follow(ctx context.Context, end wire.TenantEnd) error {
	ctx, cancel := context.WithTimeout(ctx, d.patience)
	defer cancel()
	tick := time.NewTicker(drainPoll)
	defer tick.Stop()
	var last error
	for {
		e := end.Erasure
		if e == nil {
			return fmt.Errorf("the erasure of %s was given up", d.name)
		}
		d.draw(e)
		if last == nil {
			if e.Step == command.StepDone {
				return d.certified(ctx, e)
			}
			if d.mine(e) {
				if err := d.takeArchive(ctx, e); err != nil {
					return err
				}
			} else if !d.wait && stands(&end) {
				return d.standing(&end)
			}
		}
		select {
		case <-ctx.Done():
			err := fmt.Errorf("wait for the erasure of %s: it is at the step %s: %s: %w", d.name, e.Step, firstOf(printable(e.Waiting), "in progress"), ctx.Err())
			return errors.Join(err, last)
		case <-tick.C:
		}
		var now wire.TenantEnd
		if now, last = tenantEnd(ctx, d.cl, d.name); last == nil {
			end = now
		} else if final(last) {
			return last
		}
	}
}

// final reports whether asking again will not help.
func final(err error) bool {
	var p *problemError
	return errors.As(err, &p) && (p.Status == http.StatusUnauthorized || p.Status == http.StatusForbidden || p.Status == http.StatusNotFound)
}

// mine reports whether this command has the archive to take now.
func (d *deletion) mine(e *wire.Erasure) bool {
	return d.file != "" && e.Step == command.StepExport && e.ExportSHA256 == "" && e.Recipient == d.recipient
}

// stands reports whether the plan waits for what only people or time end.
func stands(end *wire.TenantEnd) bool {
	e := end.Erasure
	if e.Waiting == "" {
		return false // the driver has not looked yet
	}
	return e.Step == command.StepRetain || e.Step == command.StepExport && e.Recipient != "" && e.ExportSHA256 == ""
}

// standing prints a plan that waits.
func (d *deletion) standing(end *wire.TenantEnd) error {
	d.line("")
	return d.print(erasureTable(*end.Erasure), end.Erasure)
}
