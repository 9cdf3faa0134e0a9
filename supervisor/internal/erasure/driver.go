package erasure

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/bulkhead-ai/bulkhead/cluster/audit"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"github.com/bulkhead-ai/bulkhead/cluster/state"
	"go.uber.org/zap"
	"golang.org/x/mod/sumdb/note"
)

// Leadership tells which node drives.
type Leadership interface {
	// Leading reports whether this node leads the cluster; always true for a
	// node that is alone. A wrong answer costs refused proposals only.
	Leading() bool
}

// DriverConfig holds what a Driver works with; every field but Log and Trail is
// required.
type DriverConfig struct {
	Node    string // this node's id
	Name    string // of the cluster, for the certificate
	Cluster Cluster
	Watch   Watcher
	Leads   Leadership
	Shares  Shares
	Signer  note.Signer      // of certificates
	Now     func() time.Time // the clock that retention ends by; default time.Now
	Trail   Trail            // nil = no audit trail
	Log     *zap.Logger      // default: none
}

// Driver moves plans on while its node leads.
type Driver struct{ cfg DriverConfig }

// NewDriver makes a driver. It does nothing before Run.
func NewDriver(cfg DriverConfig) (*Driver, error) {
	if cfg.Node == "" || cfg.Cluster == nil || cfg.Watch == nil || cfg.Leads == nil || cfg.Shares == nil || cfg.Signer == nil {
		return nil, errors.New("erasure: node, cluster, watch, leads, shares and signer are required")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = zap.NewNop()
	}
	return &Driver{cfg}, nil
}

// Run drives until the context ends. It is called once.
func (d *Driver) Run(ctx context.Context) { watch(ctx, d.cfg.Watch, d.look) }

// look moves every plan on as far as it can go now.
func (d *Driver) look(ctx context.Context) {
	for _, p := range d.cfg.Cluster.State().View().Erasures() {
		for running(&p) && ctx.Err() == nil && d.cfg.Leads.Leading() {
			moved, err := d.move(ctx, &p)
			if err != nil && !settled(err) {
				d.cfg.Log.Warn("advance an erasure", zap.String("tenant", string(p.Tenant)), zap.String("step", p.Step), zap.Error(err))
			}
			next, ok := d.cfg.Cluster.State().View().Erasure(p.Tenant)
			if err != nil || !moved || !ok || next.ID != p.ID {
				break
			}
			p = next
		}
	}
}

// move does the next thing for one plan: it moves it to the next step, notes
// what it waits for, or does nothing.
func (d *Driver) move(ctx context.Context, p *command.Erasure) (moved bool, err error) {
	view := d.cfg.Cluster.State().View()
	cmd := command.AdvanceErasure{Tenant: p.Tenant, ID: p.ID, Step: p.Step}
	if cmd.Waiting = d.waiting(view, p); cmd.Waiting != "" {
		if cmd.Waiting == p.Waiting {
			return false, nil
		}
		return false, propose(ctx, d.cfg.Cluster, &cmd)
	}
	switch p.Step {
	case command.StepDrain:
		cmd.Next = command.StepExport
	case command.StepExport:
		cmd.Next = command.StepRetain
		cmd.ExportLost = p.Recipient != "" && len(p.ExportSHA256) == 0 // waiting let it pass: the share is destroyed
	case command.StepRetain:
		cmd.Next = command.StepShred
	case command.StepShred:
		cmd.Next = command.StepForget
	case command.StepForget:
		cmd.Next = command.StepSnapshots
	case command.StepSnapshots:
		cmd.Next = command.StepCertify
	case command.StepCertify:
		cmd.Next = command.StepDone
		if cmd.Certificate, err = d.certify(view, p); err != nil {
			return false, err
		}
	default:
		return false, fmt.Errorf("step %q is unknown to this build", p.Step)
	}
	return true, d.advance(ctx, p, &cmd)
}

// advance proposes a move. Those from which there is no way back are in the
// tenant's audit log before.
func (d *Driver) advance(ctx context.Context, p *command.Erasure, cmd *command.AdvanceErasure) error {
	final := cmd.Next == command.StepShred || cmd.Next == command.StepSnapshots || cmd.Next == command.StepDone
	e := nodeEvent(p, d.cfg.Node, ActionErased)
	e.Op += "/" + cmd.Next
	e.Before, e.After = stepDetail(cmd.Step), stepDetail(cmd.Next)
	if final {
		e.Phase, e.Result = audit.Intent, audit.Pending
		if err := record(ctx, d.cfg.Trail, audit.TenantLog(p.Tenant), e); err != nil {
			return fmt.Errorf("record the intent: %w", err)
		}
	}
	err := propose(ctx, d.cfg.Cluster, cmd)
	if !final {
		return err
	}
	e.Phase, e.Result = audit.Outcome, audit.Done
	switch {
	case settled(err):
		e.Result = audit.Failed
	case err != nil:
		e.Result = audit.Unknown
	}
	if note := record(ctx, d.cfg.Trail, audit.TenantLog(p.Tenant), e); note != nil {
		d.cfg.Log.Warn("record the outcome of an erasure's step", zap.String("tenant", string(p.Tenant)), zap.Error(note))
	}
	return err
}

// stepDetail never fails: a step is a plain word.
func stepDetail(step string) json.RawMessage { return json.RawMessage(`{"step":"` + step + `"}`) }

// nodeEvent is the frame of an event that a node causes by itself.
func nodeEvent(p *command.Erasure, node, action string) audit.Event {
	return audit.Event{
		Op: p.ID, Action: action, Tenant: p.Tenant, Actor: audit.Actor{Subject: "node/" + node, Method: "node"},
		Object: "Tenant " + string(p.Tenant), Reason: clip(p.Reason), Node: node,
	}
}

func clip(s string) string {
	if len(s) <= audit.MaxText {
		return s
	}
	s = s[:audit.MaxText]
	for len(s) > 0 && s[len(s)-1]&0xc0 == 0x80 { // do not end within a character
		s = s[:len(s)-1]
	}
	return s[:max(len(s)-1, 0)]
}

// certify signs the certificate of a plan as the view has it.
func (d *Driver) certify(view *state.View, p *command.Erasure) ([]byte, error) {
	c, err := certificateOf(view, p, d.cfg.Name)
	if err != nil {
		return nil, err
	}
	raw, err := note.Sign(&note.Note{Text: c.Text()}, d.cfg.Signer)
	if err != nil {
		return nil, fmt.Errorf("sign the certificate of %s: %w", p.Tenant, err)
	}
	return raw, nil
}
