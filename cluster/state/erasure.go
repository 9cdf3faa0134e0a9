package state

import (
	"crypto/sha256"
	"slices"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/audit"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
)

const (
	maxRecipient   = 256      // bytes of an age public key
	maxCertificate = 16 << 10 // bytes
)

// erasure is a plan with the index of the command that began it, by which the
// plans of one name are in order.
type erasure struct {
	command.Erasure
	Index uint64 `json:"index"`
}

// hold keeps a tenant's data.
type hold struct {
	Tenant bulkhead.TenantID `json:"tenant"`
	Reason string            `json:"reason"`
	By     string            `json:"by"`
	At     int64             `json:"at"` // Unix milliseconds
}

// steps are the steps of an erasure in order.
func steps() []string {
	return []string{
		command.StepDrain, command.StepExport, command.StepRetain, command.StepShred,
		command.StepForget, command.StepSnapshots, command.StepCertify, command.StepDone,
	}
}

func isStep(step string) bool { return slices.Contains(steps(), step) }

// before reports whether a step comes before another.
func before(step, other string) bool {
	return slices.Index(steps(), step) < slices.Index(steps(), other)
}

// beginErasure ends all access at once: one command, so nobody finds a tenant
// half closed.
func (t *tx) beginErasure(cmd *command.BeginErasure) (any, error) {
	rec, err := t.liveTenant(cmd.Tenant)
	if err != nil {
		return nil, err
	}
	if plan, ok := t.running(cmd.Tenant); ok {
		return plan.Erasure, nil
	}
	if err := t.notHeld(cmd.Tenant); err != nil {
		return nil, err
	}
	plan := erasure{Index: t.index, Erasure: command.Erasure{
		ID: cmd.ID, Tenant: cmd.Tenant, Reason: cmd.Reason, By: cmd.By, Recipient: cmd.Recipient, NotBefore: cmd.NotBefore,
		Step: command.StepDrain, StartedAt: t.now, StepAt: t.now, ShareID: rec.ShareID,
	}}
	if err := checkPlan(&plan.Erasure); err != nil {
		return nil, err
	}
	t.rangeTenantKeys(cmd.Tenant, func(old *command.Key) bool {
		if old.RevokedAt == 0 {
			k := *old
			k.RevokedAt = max(t.now, 1)
			t.putKey(&k)
			plan.KeysRevoked++
		}
		return true
	})
	rec.Erasing = true
	t.putTenant(cmd.Tenant, &rec)
	t.putErasure(&plan)
	return plan.Erasure, nil
}

func checkPlan(e *command.Erasure) error {
	switch {
	case !validRandom(e.ID):
		return invalid("id", "The id of an erasure has 1 to 64 printable ASCII characters.")
	case e.Reason == "" || len(e.Reason) > audit.MaxText:
		return invalid("reason", "An erasure has a reason of 1 to 512 bytes.")
	case e.By == "" || len(e.By) > maxText:
		return invalid("by", "An erasure names who asked for it, in 1 to 256 bytes.")
	case !printable(e.Recipient, maxRecipient):
		return invalid("recipient", "The recipient of the export is an age public key.")
	case e.NotBefore < 0 || e.StartedAt < 0 || e.StepAt < 0 || e.FinishedAt < 0 || e.KeysRevoked < 0:
		return invalid("not_before", "A time is not negative.")
	}
	return nil
}

// advanceErasure notes what was done, then moves on if what the present step
// promises holds.
func (t *tx) advanceErasure(cmd *command.AdvanceErasure) (any, error) {
	old, ok := t.lastErasure(cmd.Tenant)
	if !ok || old.ID != cmd.ID {
		return nil, erasureNotFound(cmd.Tenant)
	}
	if old.Step != cmd.Step || old.Step == command.StepDone {
		return nil, bulkhead.E(bulkhead.Conflict, "erasure_step",
			"The erasure of tenant "+quote(string(cmd.Tenant))+" is at the step "+old.Step+".")
	}
	plan := *old
	if err := t.noteStep(&plan.Erasure, cmd); err != nil {
		return nil, err
	}
	if cmd.Next != "" {
		if err := t.leaveStep(&plan.Erasure, cmd.Next); err != nil {
			return nil, err
		}
		plan.Passed = append(slices.Clip(plan.Passed), command.Confirmation{Step: plan.Step, At: t.now})
		if cmd.Next == command.StepShred {
			t.nameKeys(&plan.Erasure)
		}
		plan.Step, plan.StepAt, plan.Waiting = cmd.Next, t.now, cmd.Waiting
		if cmd.Next == command.StepSnapshots {
			if err := t.forgetTenant(cmd.Tenant); err != nil {
				return nil, err
			}
		}
		if cmd.Next == command.StepDone {
			plan.FinishedAt = t.now
		}
	}
	t.putErasure(&plan)
	t.touchTenant(cmd.Tenant)
	return plan.Erasure, nil
}

// nameKeys fixes what is destroyed: until now the tenant could get its first data
// key, for an export starts a worker.
func (t *tx) nameKeys(e *command.Erasure) {
	rec, ok := t.tenants.get(string(e.Tenant))
	if !ok || len(rec.DataKey) == 0 {
		return
	}
	sum := sha256.Sum256(rec.DataKey)
	e.ShareID, e.DataKeySHA = rec.ShareID, sum[:]
}

// noteStep adds what the command says about the present step.
func (t *tx) noteStep(e *command.Erasure, cmd *command.AdvanceErasure) error {
	switch {
	case len(cmd.Waiting) > audit.MaxText:
		return invalid("waiting", "What a step waits for is said in at most 512 bytes.")
	case len(cmd.ExportSHA256) != 0 && (len(cmd.ExportSHA256) != 32 || e.Step != command.StepExport):
		return invalid("export_sha256", "The SHA-256 of the archive has 32 bytes and belongs to the step export.")
	case len(cmd.Certificate) > maxCertificate || len(cmd.Certificate) != 0 && e.Step != command.StepCertify:
		return invalid("certificate", "A certificate has at most 16384 bytes and belongs to the step certify.")
	}
	if cmd.ExportLost && e.Step != command.StepExport {
		return invalid("export_lost", "That nothing can be exported any more belongs to the step export.")
	}
	e.Waiting, e.ExportLost = cmd.Waiting, e.ExportLost || cmd.ExportLost
	if len(cmd.ExportSHA256) != 0 {
		e.ExportSHA256 = cmd.ExportSHA256
	}
	if len(cmd.Certificate) != 0 {
		e.Certificate = cmd.Certificate
	}
	if cmd.Node == "" || confirmed(e, cmd.Node) {
		return nil
	}
	if len(cmd.Node) > maxNodeLen || e.Step != command.StepDrain && e.Step != command.StepShred && e.Step != command.StepSnapshots {
		return invalid("node", "Nodes confirm the steps drain, shred and snapshots.")
	}
	if _, err := t.member(cmd.Node); t.cluster != nil && err != nil {
		return err
	}
	e.Confirmed = append(slices.Clip(e.Confirmed), command.Confirmation{Step: e.Step, Node: cmd.Node, At: t.now})
	return nil
}

// confirmed reports whether a node did its part of the present step; "" is any
// node.
func confirmed(e *command.Erasure, node string) bool {
	return slices.ContainsFunc(e.Confirmed, func(c command.Confirmation) bool {
		return c.Step == e.Step && (node == "" || c.Node == node)
	})
}

// leaveStep refuses to move on before its time. No step that destroys is passed
// over, and none that keeps is left early.
func (t *tx) leaveStep(e *command.Erasure, next string) error {
	if !isStep(next) || !before(e.Step, next) {
		return invalid("next", "The next step is a later one.")
	}
	for _, s := range [...]string{command.StepShred, command.StepForget, command.StepSnapshots, command.StepCertify} {
		if before(e.Step, s) && before(s, next) {
			return invalid("next", "The step "+s+" cannot be passed over.")
		}
	}
	if before(e.Step, command.StepShred) && next == command.StepShred {
		if err := t.mayDestroy(e); err != nil {
			return err
		}
	}
	switch e.Step {
	case command.StepShred, command.StepSnapshots:
		if missing := t.unconfirmed(e); missing != "" {
			return bulkhead.E(bulkhead.Conflict, "erasure_unconfirmed", missing+" has not confirmed the step "+e.Step+" yet.")
		}
	case command.StepCertify:
		if len(e.Certificate) == 0 {
			return bulkhead.E(bulkhead.Conflict, "erasure_uncertified", "There is no certificate yet.")
		}
	}
	return nil
}

// mayDestroy is the last word before the data goes.
func (t *tx) mayDestroy(e *command.Erasure) error {
	if err := t.notHeld(e.Tenant); err != nil {
		return err
	}
	if t.now < e.NotBefore {
		return bulkhead.E(bulkhead.Conflict, "erasure_retained", "The data is kept until the time that the erasure names.")
	}
	if e.Recipient != "" && len(e.ExportSHA256) == 0 && !e.ExportLost {
		return bulkhead.E(bulkhead.Conflict, "erasure_not_exported", "The export that was asked for was not taken yet.")
	}
	return nil
}

// unconfirmed names a member that did not do its part; "" is none.
func (t *tx) unconfirmed(e *command.Erasure) (missing string) {
	if !confirmed(e, "") {
		return "Every node"
	}
	t.nodes.scan("", func(id string, _ *command.Node) bool {
		if !confirmed(e, id) {
			missing = "Node " + quote(id)
		}
		return missing == ""
	})
	return missing
}

func (t *tx) cancelErasure(cmd *command.CancelErasure) error {
	plan, ok := t.running(cmd.Tenant)
	if !ok || plan.ID != cmd.ID {
		return erasureNotFound(cmd.Tenant)
	}
	if !before(plan.Step, command.StepShred) {
		return erasureBegun(cmd.Tenant)
	}
	rec, err := t.liveTenant(cmd.Tenant)
	if err != nil {
		return err
	}
	t.erasures = t.erasures.del(erasureKey(cmd.Tenant, plan.Index))
	rec.Erasing = false
	t.putTenant(cmd.Tenant, &rec)
	return nil
}

// setHold comes too late once a plan destroys.
func (t *tx) setHold(cmd *command.SetHold) error {
	if _, err := t.liveTenant(cmd.Tenant); err != nil {
		return err
	}
	if !cmd.Hold {
		t.holds = t.holds.del(string(cmd.Tenant))
		return nil
	}
	h := hold{Tenant: cmd.Tenant, Reason: cmd.Reason, By: cmd.By, At: t.now}
	if err := checkHold(&h); err != nil {
		return err
	}
	if plan, ok := t.running(cmd.Tenant); ok && !before(plan.Step, command.StepShred) {
		return erasureBegun(cmd.Tenant)
	}
	t.holds = t.holds.put(string(cmd.Tenant), &h)
	return nil
}

func checkHold(h *hold) error {
	if h.Reason == "" || len(h.Reason) > audit.MaxText || h.By == "" || len(h.By) > maxText {
		return invalid("reason", "A hold has a reason of 1 to 512 bytes and says who put it, in 1 to 256.")
	}
	return nil
}

func (t *tx) notHeld(tenant bulkhead.TenantID) error {
	if _, held := t.holds.get(string(tenant)); held {
		return bulkhead.E(bulkhead.Conflict, "legal_hold", "Tenant "+quote(string(tenant))+" is under legal hold.")
	}
	return nil
}

// usableTenant is liveTenant where something new is begun: a tenant that is
// being erased takes nothing more.
func (t *tx) usableTenant(id bulkhead.TenantID) (tenant, error) {
	rec, err := t.liveTenant(id)
	if err == nil && rec.Erasing {
		err = tenantErasing(id)
	}
	return rec, err
}

// notDestroyed refuses a worker once its tenant's data is being destroyed. Until
// then one may run for the export.
func (t *tx) notDestroyed(id bulkhead.TenantID) error {
	if plan, ok := t.running(id); ok && !before(plan.Step, command.StepShred) {
		return tenantErasing(id)
	}
	return nil
}

func tenantErasing(id bulkhead.TenantID) error {
	return bulkhead.E(bulkhead.Conflict, "tenant_erasing", "Tenant "+quote(string(id))+" is being erased.")
}

func erasureBegun(id bulkhead.TenantID) error {
	return bulkhead.E(bulkhead.Conflict, "erasure_begun", "The data of tenant "+quote(string(id))+" is being destroyed already.")
}

func erasureNotFound(id bulkhead.TenantID) error {
	return bulkhead.E(bulkhead.NotFound, "erasure_not_found", "Tenant "+quote(string(id))+" has no such erasure.")
}
