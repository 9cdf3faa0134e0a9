package erasure

import (
	"strings"
	"time"

	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"github.com/bulkhead-ai/bulkhead/cluster/state"
)

// waiting is what keeps a plan at its step, for people; "" when nothing does.
// The state machine judges again when the move is applied.
func (d *Driver) waiting(view *state.View, p *command.Erasure) string {
	switch p.Step {
	case command.StepDrain:
		return d.drainWaits(view, p)
	case command.StepExport:
		if p.Recipient == "" || len(p.ExportSHA256) > 0 || destroyed(d.cfg.Shares, p.Tenant, shareOf(view, p)) {
			return ""
		}
		return "the archive for " + p.Recipient + " has not been taken"
	case command.StepRetain:
		return d.retainWaits(view, p)
	case command.StepShred, command.StepSnapshots:
		return d.unconfirmed(view, p)
	}
	return ""
}

// drainWaits: whoever owns the tenant has booked all that was ever signed, for
// it took over the journal of every earlier owner before it began its epoch.
// Others may have a process that is fenced already, and EraseFiles finds it.
func (d *Driver) drainWaits(view *state.View, p *command.Erasure) string {
	t, ok := view.Tenant(p.Tenant)
	if !ok || t.Epoch == 0 || destroyed(d.cfg.Shares, p.Tenant, shareOf(view, p)) {
		return "" // nothing was ever served, or nothing of it can be read any more
	}
	owner := d.cfg.Node
	if _, clustered := view.Cluster(); clustered {
		owner = t.Assigned
	}
	switch {
	case owner == "":
		return "the tenant is assigned to no node that could book its last receipts"
	case !confirmed(p, command.StepDrain, owner):
		return "node " + owner + " has not ended the worker and booked its receipts"
	}
	return ""
}

// retainWaits counts the time as over when either clock says so: the state's
// follows with the proposal, and an idle cluster has none between.
func (d *Driver) retainWaits(view *state.View, p *command.Erasure) string {
	if reason, held := view.Held(p.Tenant); held {
		return "legal hold: " + reason
	}
	if until := time.UnixMilli(p.NotBefore); p.NotBefore != 0 && view.Time().Before(until) && d.cfg.Now().Before(until) {
		return "retention until " + until.UTC().Format(time.RFC3339)
	}
	return ""
}

func (d *Driver) unconfirmed(view *state.View, p *command.Erasure) string {
	var missing []string
	for _, n := range members(view, d.cfg.Node) {
		if !confirmed(p, p.Step, n) {
			missing = append(missing, n)
		}
	}
	if len(missing) == 0 {
		return ""
	}
	return "not confirmed by " + strings.Join(missing, ", ")
}
