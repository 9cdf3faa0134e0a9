package cli

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/configs/manifest"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin/wire"
	"github.com/spf13/cobra"
)

const (
	// launchName marks everything that the check makes and sends.
	launchName = "launch-check"
	// launchKeyLife bounds the check's keys: they end even if nobody removes them.
	launchKeyLife = 10 * time.Minute
	// launchPatience bounds the wait for log and ledger, which follow a request.
	launchPatience = 20 * time.Second
	launchPoll     = 200 * time.Millisecond
	// launchCleanup bounds the removal of what the check made, also after an
	// interrupt.
	launchCleanup = time.Minute
)

// launchOptions are the flags of doctor --launch.
type launchOptions struct {
	on    bool
	teams []string
	url   string
	model string
	yes   bool
}

func (o *launchOptions) flags(c *cobra.Command) {
	f := c.Flags()
	f.BoolVar(&o.on, "launch", false, "check instead that teams are ready for launch, with real requests")
	f.StringArrayVar(&o.teams, "team", nil, "with --launch: TENANT/PROJECT; may be repeated")
	f.StringVar(&o.url, "url", "", "with --launch: address of the data plane (default $BULKHEAD_URL)")
	f.StringVar(&o.model, "model", "", "with --launch: model to ask (default: one that the environments allow)")
	f.BoolVar(&o.yes, "yes", false, "with --launch: do not ask before sending")
}

// grade is how one check ended.
type grade string

const (
	passed  grade = "ok"
	failing grade = "FAIL"
	nothing grade = "-" // there was nothing to check
)

// finding is a line of the result.
type finding struct {
	Team   string `json:"team"`
	Env    string `json:"env,omitempty"`
	Check  string `json:"check"`
	Result grade  `json:"result"`
	Why    string `json:"why"`
}

// team is a project of a tenant.
type team struct {
	tenant  bulkhead.TenantID
	project string
}

func (t team) String() string { return string(t.tenant) + "/" + t.project }

func parseTeams(list []string) ([]team, error) {
	var out []team
	seen := map[team]bool{}
	for _, s := range list {
		tenant, project, _ := strings.Cut(s, "/")
		t := team{bulkhead.TenantID(tenant), project}
		switch {
		case !bulkhead.ValidName(tenant) || !bulkhead.ValidName(project):
			return nil, usagef("--team %q: want TENANT/PROJECT", s)
		case seen[t]:
			return nil, usagef("--team %s stands twice", s)
		}
		seen[t] = true
		out = append(out, t)
	}
	if len(out) == 0 {
		return nil, usagef("doctor --launch: --team TENANT/PROJECT is missing")
	}
	return out, nil
}

// launch runs the check and prints what it found. What fails is no error but the
// exit status.
func (a *app) launch(cmd *cobra.Command, o launchOptions) error {
	teams, err := parseTeams(o.teams)
	if err != nil {
		return err
	}
	if _, err := a.output.or(tableOut, tableOut, jsonOut, yamlOut, csvOut); err != nil {
		return err
	}
	data, err := a.dataPlane(firstOf(o.url, a.streams.Getenv("BULKHEAD_URL")))
	if err != nil {
		return err
	}
	cl, err := a.client()
	if err != nil {
		return err
	}
	cl.reason = firstOf(cl.reason, "launch check")
	l := &launcher{admin: cl, data: data, model: o.model, run: strings.ToLower(rand.Text()[:8]), teams: teams}
	if err := l.load(cmd.Context()); err != nil {
		return err
	}
	if err := a.announce(l, o.yes); err != nil {
		return err
	}
	for _, t := range teams {
		if a.streams.Progress {
			fmt.Fprintf(a.streams.Err, "checking %s ...\n", t)
		}
		l.team(cmd.Context(), t)
	}
	l.owners()
	return errors.Join(a.printFindings(l.found), cmd.Context().Err())
}

// announce says what is about to be done, and asks.
func (a *app) announce(l *launcher, yes bool) error {
	var names []string
	for _, t := range l.teams {
		names = append(names, t.String())
	}
	fmt.Fprintf(a.streams.Err, `The launch check of %s will, in each of two environments per team:
  make a service account %s-...-%s that may send one request a day, and a key for it that ends within %s;
  send two small requests to %s, of which one is served and paid for, and some that must be refused;
  revoke the key and delete the service account again. The requests stay in log and bill, marked %s.
`, strings.Join(names, ", "), launchName, l.run, launchKeyLife, l.data.url, launchName)
	switch {
	case yes:
		return nil
	case !a.streams.Progress:
		return usagef("doctor --launch: nobody can be asked here; --yes says that it may go on")
	}
	fmt.Fprint(a.streams.Err, "Go on? [y/N] ")
	answer, err := bufio.NewReader(a.streams.In).ReadString('\n')
	if err != nil && answer == "" {
		return fmt.Errorf("read the answer: %w", err)
	}
	if answer = strings.ToLower(strings.TrimSpace(answer)); answer != "y" && answer != "yes" {
		return errors.New("nothing was done")
	}
	return nil
}

func (a *app) printFindings(found []finding) error {
	t := table{columns: []string{"team", "env", "check", "result", "why"}}
	for _, f := range found {
		t.add(f.Team, f.Env, f.Check, string(f.Result), f.Why)
		if f.Result == failing {
			a.status = Failed
		}
	}
	return a.print(t, found)
}

// launcher is one run of the check.
type launcher struct {
	admin *client
	data  *dataPlane
	model string
	run   string // makes names of this run different from those of others
	teams []team

	objects []manifest.Object
	keys    map[bulkhead.TenantID][]wire.Key // those that live, but the check's own
	found   []finding
}

func (l *launcher) add(t team, env, check string, result grade, format string, args ...any) {
	l.found = append(l.found, finding{t.String(), env, check, result, fmt.Sprintf(format, args...)})
}

// judge adds a check that holds if nothing speaks against it.
func (l *launcher) judge(t team, env, check, good string, problems ...string) {
	var bad []string
	for _, p := range problems {
		if p != "" {
			bad = append(bad, p)
		}
	}
	if len(bad) > 0 {
		l.add(t, env, check, failing, "%s", strings.Join(bad, "; "))
		return
	}
	l.add(t, env, check, passed, "%s", good)
}

// load reads what is in force before anything is made.
func (l *launcher) load(ctx context.Context) error {
	var objects wire.Objects
	if err := l.admin.do(ctx, call{method: http.MethodGet, path: "/objects"}, &objects); err != nil {
		return err
	}
	l.objects, l.keys = objects.Objects, map[bulkhead.TenantID][]wire.Key{}
	for _, t := range l.teams {
		if _, ok := l.keys[t.tenant]; ok {
			continue
		}
		if _, ok := l.object(manifest.KindTenant, "", string(t.tenant)); !ok {
			continue
		}
		var list wire.Keys
		if err := l.admin.do(ctx, call{method: http.MethodGet, path: "/keys", query: query("tenant", string(t.tenant))}, &list); err != nil {
			return err
		}
		living := []wire.Key{}
		for _, k := range list.Keys {
			ended := !k.RevokedAt.IsZero() || !k.ExpiresAt.IsZero() && k.ExpiresAt.Before(time.Now())
			if !ended && k.Service != launchName {
				living = append(living, k)
			}
		}
		l.keys[t.tenant] = living
	}
	return nil
}

func (l *launcher) object(kind manifest.Kind, tenant bulkhead.TenantID, name string) (manifest.Object, bool) {
	for _, o := range l.objects {
		if o.Kind == kind && o.Tenant == tenant && o.Name == name {
			return o, true
		}
	}
	return manifest.Object{}, false
}
