package admin

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"github.com/bulkhead-ai/bulkhead/cluster/state"
	"github.com/bulkhead-ai/bulkhead/configs/manifest"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/access"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin/wire"
)

// What a finding is for.
const (
	reasonUnused        = "unused"
	reasonNeverUsed     = "never_used"
	reasonExpired       = "expired"
	reasonOwnerless     = "ownerless"
	reasonNoAccount     = "no_account"
	reasonNoEnvironment = "no_environment"
	reasonNoKeys        = "no_keys"
)

type orphansInput struct {
	Tenant     string `query:"tenant" maxLength:"63" doc:"default: all tenants that the caller may see"`
	UnusedDays int    `query:"unused_days" minimum:"0" maximum:"3650" default:"90" doc:"what was not used for so many days is unused"`
}

type orphansOutput struct{ Body wire.Orphans }

func (a *API) orphanRoutes() {
	guarded(a, operation("list-orphans", http.MethodGet, "/orphans", "List keys, service accounts and tenants that nobody seems to need or to answer for"),
		func(ctx context.Context, in *orphansInput) (matter, error) {
			return a.aboutList(ctx, "list-orphans", in.Tenant, "orphans")
		}, a.listOrphans)
}

func (a *API) listOrphans(ctx context.Context, in *orphansInput) (*orphansOutput, error) {
	rule, _ := access.Find("list-orphans")
	f := finder{v: a.cfg.Cluster.State().View(), now: time.Now(), found: []wire.Orphan{}}
	f.since = f.now.AddDate(0, 0, -in.UnusedDays)
	for _, id := range f.v.Tenants() {
		if (in.Tenant == "" || in.Tenant == string(id)) && rule.Admits(principalOf(ctx), id, "", "") {
			f.tenant(id)
		}
	}
	slices.SortStableFunc(f.found, func(x, y wire.Orphan) int {
		return cmp.Or(cmp.Compare(x.Tenant, y.Tenant), cmp.Compare(x.Kind, y.Kind), cmp.Compare(x.Project, y.Project), cmp.Compare(x.Name, y.Name))
	})
	return &orphansOutput{wire.Orphans{Orphans: f.found, UnusedDays: in.UnusedDays, NotChecked: notChecked()}}, nil
}

// notChecked says what would look like an answer if it were left out.
func notChecked() []string {
	return []string{
		"whether an owner still works here: the gateway sees people only when they sign in and keeps no list of them; when somebody leaves, run bulkhead key revoke --owner EMAIL --tenant TENANT",
		"requests of the last moments: use is known from the ledger, which is behind by seconds",
	}
}

// finder looks for orphans in one view of the state.
type finder struct {
	v     *state.View
	now   time.Time
	since time.Time // what was not used after it is unused
	found []wire.Orphan
}

func (f *finder) add(o wire.Orphan, reason, why, todo string) {
	o.Reason, o.Why, o.ToDo = reason, why, todo
	f.found = append(f.found, o)
}

func (f *finder) tenant(id bulkhead.TenantID) {
	t, ok := f.v.Tenant(id)
	if !ok || t.Erasing {
		return
	}
	living := map[string]int{} // by project and account
	for _, k := range f.v.Keys(id) {
		if k.RevokedAt != 0 {
			continue
		}
		f.key(&k)
		if live(&k, f.now.UnixMilli()) {
			living[k.Project+"/"+k.Account]++
		}
	}
	for _, o := range f.v.ObjectsOf(manifest.KindServiceAccount, id) {
		f.account(id, &o, living[o.Project+"/"+o.Name])
	}
	f.wholeTenant(id, &t, len(living))
}

func (f *finder) key(k *command.Key) {
	last, _ := f.v.LastUsed(k.ID)
	o := wire.Orphan{
		Kind: "Key", Tenant: k.Tenant, Project: k.Project, Env: k.Env, Name: string(k.ID), Owner: k.Owner, Label: k.Label,
		CreatedAt: timeOf(k.CreatedAt), LastUsed: timeOf(last),
	}
	revoke := "bulkhead key revoke " + string(k.ID)
	if !manifest.ValidOwner(k.Owner) {
		f.add(o, reasonOwnerless, "its owner is no e-mail address, so nobody answers for it", "create a key with an owner and "+revoke)
	}
	if reason, why := f.homeless(k); reason != "" {
		f.add(o, reason, why, revoke)
	}
	switch {
	case !live(k, f.now.UnixMilli()):
		f.add(o, reasonExpired, "it expired on "+day(timeOf(k.ExpiresAt))+" and is not revoked", revoke)
	case last == 0:
		f.add(o, reasonNeverUsed, "it was never used since it was created on "+day(o.CreatedAt), "ask "+k.Owner+", then "+revoke)
	case o.LastUsed.Before(f.since):
		f.add(o, reasonUnused, "it was last used on "+day(o.LastUsed), "ask "+k.Owner+", then "+revoke)
	}
}

// homeless answers what of a key's place is gone.
func (f *finder) homeless(k *command.Key) (reason, why string) {
	project, _, ok := f.v.Object(manifest.Ref{Kind: manifest.KindProject, Tenant: k.Tenant, Name: k.Project})
	if !ok {
		return reasonNoEnvironment, "its project is gone"
	}
	if _, ok := project.ProjectSpec.Environments[k.Env]; !ok {
		return reasonNoEnvironment, "its environment is gone"
	}
	ref := manifest.Ref{Kind: manifest.KindServiceAccount, Tenant: k.Tenant, Project: k.Project, Name: k.Account}
	if _, _, ok := f.v.Object(ref); !ok {
		return reasonNoAccount, fmt.Sprintf("its service account %s is gone", k.Account)
	}
	return "", ""
}

func (f *finder) account(tenant bulkhead.TenantID, o *manifest.Object, keys int) {
	found := wire.Orphan{Kind: string(manifest.KindServiceAccount), Tenant: tenant, Project: o.Project, Name: o.Name, Owner: o.ServiceAccountSpec.Owner}
	if _, meta, ok := f.v.Object(o.Ref); ok {
		found.CreatedAt = timeOf(meta.CreatedAt)
	}
	if !manifest.ValidOwner(found.Owner) {
		f.add(found, reasonOwnerless, "its owner is no e-mail address", "apply it with an owner")
	}
	if keys == 0 {
		f.add(found, reasonNoKeys, "it has no key that works", fmt.Sprintf("bulkhead delete ServiceAccount %s --tenant %s --project %s", o.Name, tenant, o.Project))
	}
}

func (f *finder) wholeTenant(id bulkhead.TenantID, t *state.Tenant, accountsWithKeys int) {
	o := wire.Orphan{Kind: string(manifest.KindTenant), Tenant: id, Name: string(id), Owner: t.Spec.Owner, CreatedAt: timeOf(t.CreatedAt)}
	last := ""
	f.v.UsageOf(id, func(row state.UsageRow) bool {
		last = max(last, row.Day)
		return true
	})
	if at, err := time.Parse(time.DateOnly, last); err == nil {
		o.LastUsed = at
	}
	todo := "ask " + t.Spec.Owner + ", then bulkhead tenant delete " + string(id)
	if accountsWithKeys == 0 {
		f.add(o, reasonNoKeys, "it has no key that works", todo)
	}
	switch {
	case last == "":
		f.add(o, reasonNeverUsed, "it never sent a request", todo)
	case last < f.since.In(zoneOf(f.v, id)).Format(time.DateOnly):
		f.add(o, reasonUnused, "its last request was on "+last, todo)
	}
}

func day(t time.Time) string { return t.UTC().Format(time.DateOnly) }
