package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/configs/manifest"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin/wire"
)

// trial is what the check makes and sees in one environment.
type trial struct {
	environment
	account string
	key     wire.KeyCreated
	model   string
	served  reply
	refused reply
}

// team checks one team. Whatever happens, what was made is removed.
func (l *launcher) team(ctx context.Context, t team) {
	if ctx.Err() != nil {
		l.add(t, "", "check", failing, "interrupted before it began")
		return
	}
	envs, problem := l.environments(t)
	l.judge(t, "", "environments", "it has prod and a place to try things out", problem)
	if problem != "" {
		return
	}
	l.static(t, envs)
	trials := make([]*trial, len(envs))
	for i, e := range envs {
		trials[i] = &trial{environment: e, account: fmt.Sprintf("%s-%s-%s", launchName, e.name, l.run), model: l.pick(e, envs)}
	}
	defer l.remove(ctx, t, trials)
	if err := l.make(ctx, t, trials); err != nil {
		l.add(t, "", "prepare", failing, "%s", printable(err.Error()))
		return
	}
	l.requiredTags(ctx, t)
	for _, x := range trials {
		l.missingTag(ctx, x)
	}
	l.forbiddenModel(ctx, trials[0], trials[1])
	for _, x := range trials {
		l.limitTrips(ctx, x)
	}
	for _, x := range trials {
		l.revoked(ctx, x)
	}
	for _, x := range trials {
		l.logged(ctx, x)
		l.booked(ctx, x)
	}
	l.recordsApart(t, trials)
}

// make puts an account with the limit and a key into each environment.
func (l *launcher) make(ctx context.Context, t team, trials []*trial) error {
	tenant, _ := l.object(manifest.KindTenant, "", string(t.tenant))
	who := tenant.TenantSpec.Owner
	var me wire.Whoami
	if err := l.admin.do(ctx, call{method: http.MethodGet, path: "/whoami"}, &me); err == nil && manifest.ValidOwner(me.Email) {
		who = me.Email
	}
	one := int64(1)
	var accounts []manifest.Object
	for _, x := range trials {
		accounts = append(accounts, manifest.Object{
			Ref: manifest.Ref{Kind: manifest.KindServiceAccount, Tenant: t.tenant, Project: t.project, Name: x.account},
			ServiceAccountSpec: &manifest.ServiceAccount{
				Owner: who, Service: launchName, Limits: &manifest.Limits{Daily: &manifest.Window{Requests: &one}},
			},
		})
	}
	if err := l.admin.do(ctx, call{method: http.MethodPost, path: "/apply", body: wire.Apply{Objects: accounts}}, nil); err != nil {
		return err
	}
	for _, x := range trials {
		err := l.admin.do(ctx, call{method: http.MethodPost, path: "/keys", body: wire.CreateKey{
			Tenant: t.tenant, Project: t.project, Env: x.name, ServiceAccount: x.account,
			Label: "launch check " + l.run, ExpiresAt: time.Now().Add(launchKeyLife).UTC(),
		}}, &x.key)
		if err != nil {
			return err
		}
	}
	return nil
}

// remove outlives an interrupt. It ends keys by their account, so that one whose
// creation was cut off ends too.
func (l *launcher) remove(ctx context.Context, t team, trials []*trial) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), launchCleanup)
	defer cancel()
	var problems []string
	for _, x := range trials {
		body := wire.RevokeKeys{Tenant: t.tenant, Project: t.project, ServiceAccount: x.account}
		if err := l.admin.do(ctx, call{method: http.MethodPost, path: "/keys/revoke", body: body}, nil); err != nil && !isNotFound(err) {
			problems = append(problems, fmt.Sprintf("the keys of service account %s are not revoked: %v", x.account, err))
		}
		q := query("kind", string(manifest.KindServiceAccount), "tenant", string(t.tenant), "project", t.project, "name", x.account)
		if err := l.admin.do(ctx, call{method: http.MethodDelete, path: "/objects", query: q}, nil); err != nil && !isNotFound(err) {
			problems = append(problems, fmt.Sprintf("service account %s is not deleted: %v", x.account, err))
		}
	}
	for i := range problems {
		problems[i] = printable(problems[i])
	}
	l.judge(t, "", "cleaned up", "its keys are revoked and its service accounts deleted", problems...)
}

func isNotFound(err error) bool {
	var p *problemError
	return errors.As(err, &p) && p.Status == http.StatusNotFound && !p.foreign
}

// send asks and adds the failure to ask as a finding.
func (l *launcher) send(ctx context.Context, x *trial, check, model string, tagged bool) (reply, bool) {
	r, err := l.data.ask(ctx, x.key.Key, model, tagged)
	if err != nil {
		l.add(x.team, x.name, check, failing, "%s", printable(err.Error()))
		return r, false
	}
	return r, true
}

// requiredTags wants that nobody gets in without an owner.
func (l *launcher) requiredTags(ctx context.Context, t team) {
	o := manifest.Object{
		Ref:                manifest.Ref{Kind: manifest.KindServiceAccount, Tenant: t.tenant, Project: t.project, Name: launchName + "-nobody-" + l.run},
		ServiceAccountSpec: &manifest.ServiceAccount{},
	}
	err := l.admin.do(ctx, call{method: http.MethodPost, path: "/apply", body: wire.Apply{Objects: []manifest.Object{o}, DryRun: true}}, nil)
	var p *problemError
	problem := ""
	switch {
	case err == nil:
		problem = "a service account without an owner would be accepted"
	case !errors.As(err, &p) || p.Status != http.StatusUnprocessableEntity:
		problem = printable(err.Error())
	}
	l.judge(t, "", "required tags", "a service account without an owner is refused", problem)
}

// missingTag sends a request without the tags that a client sets, where the
// environment requires one.
func (l *launcher) missingTag(ctx context.Context, x *trial) {
	const check = "required tags"
	wanted := slices.DeleteFunc(slices.Clone(x.settings.RequiredTags), func(tag string) bool {
		return tag != manifest.TagFeature && tag != manifest.TagUser
	})
	if len(wanted) == 0 {
		l.add(x.team, x.name, check, nothing, "of the required tags (%v) a key cannot lack one", x.settings.RequiredTags)
		return
	}
	r, ok := l.send(ctx, x, check, x.model, false)
	if !ok {
		return
	}
	problem := ""
	if r.status != http.StatusForbidden || r.code != "missing_tag" {
		problem = fmt.Sprintf("a request without %v got %s, want 403 missing_tag", wanted, r)
	}
	l.judge(x.team, x.name, check, fmt.Sprintf("a request without %v is refused", wanted), problem)
}

// forbiddenModel asks with the test key for what only prod may use.
func (l *launcher) forbiddenModel(ctx context.Context, prod, test *trial) {
	const check = "models apart"
	i := slices.IndexFunc(prod.models, func(m string) bool { return !slices.Contains(test.models, m) })
	if i < 0 {
		l.add(test.team, test.name, check, nothing, "%s may use every model that prod may", test.name)
		return
	}
	model := prod.models[i]
	r, ok := l.send(ctx, test, check, model, true)
	if !ok {
		return
	}
	problem := ""
	if r.status != http.StatusForbidden {
		problem = fmt.Sprintf("a request for %s, which only prod may use, got %s, want 403", model, r)
	}
	l.judge(test.team, test.name, check, fmt.Sprintf("%s, which only prod may use, is refused", model), problem)
}

// limitTrips sends the request that is served and the one that must not be.
func (l *launcher) limitTrips(ctx context.Context, x *trial) {
	var ok bool
	if x.served, ok = l.send(ctx, x, "request", x.model, true); !ok {
		return
	}
	problem := ""
	switch {
	case x.served.status != http.StatusOK:
		problem = "got " + x.served.String()
	case x.served.request == "":
		problem = "the answer has no x-request-id"
	}
	l.judge(x.team, x.name, "request", fmt.Sprintf("model %s answered", x.model), problem)
	if problem != "" {
		return
	}
	if x.refused, ok = l.send(ctx, x, "limit trips", x.model, true); !ok {
		return
	}
	if x.refused.status != http.StatusTooManyRequests || x.refused.code != "daily_requests_exceeded" {
		problem = fmt.Sprintf("the second request of an account with one request a day got %s, want 429 daily_requests_exceeded", x.refused)
	}
	l.judge(x.team, x.name, "limit trips", "the second request is refused by the account's limit", problem)
}

// revoked ends the key and uses it at once.
func (l *launcher) revoked(ctx context.Context, x *trial) {
	const check = "revoked at once"
	if err := l.admin.do(ctx, call{method: http.MethodPost, path: "/keys/" + url.PathEscape(string(x.key.ID)) + "/revoke"}, nil); err != nil {
		l.add(x.team, x.name, check, failing, "%s", printable(err.Error()))
		return
	}
	r, ok := l.send(ctx, x, check, x.model, true)
	if !ok {
		return
	}
	problem := ""
	if r.status != http.StatusUnauthorized {
		problem = fmt.Sprintf("the revoked key got %s, want 401", r)
	}
	l.judge(x.team, x.name, check, "the revoked key is refused", problem)
}

// recordsApart wants a request of its own per environment.
func (l *launcher) recordsApart(t team, trials []*trial) {
	seen := map[bulkhead.RequestID]string{}
	problem := ""
	for _, x := range trials {
		for _, r := range []reply{x.served, x.refused} {
			if at, twice := seen[r.request]; twice && r.request != "" {
				problem = fmt.Sprintf("request id %s stands for requests in %s and %s", r.request, at, x.name)
			}
			seen[r.request] = x.name
		}
	}
	l.judge(t, "", "records apart", "every request has an id of its own", problem)
}
