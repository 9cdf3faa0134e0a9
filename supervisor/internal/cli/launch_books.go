package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/bulkhead-ai/bulkhead/configs/manifest"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin/wire"
)

// errNotYet says that a log or the ledger may only be behind.
var errNotYet = errors.New("it is not there")

// eventually repeats look until it answers another error than errNotYet.
func eventually(ctx context.Context, look func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, launchPatience)
	defer cancel()
	tick := time.NewTicker(launchPoll)
	defer tick.Stop()
	for {
		err := look(ctx)
		if !errors.Is(err, errNotYet) {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w after %s", err, launchPatience)
		case <-tick.C:
		}
	}
}

// logged looks for the record of the served request, where it belongs and with
// its tags.
func (l *launcher) logged(ctx context.Context, x *trial) {
	const check = "log record"
	if x.served.request == "" {
		l.add(x.team, x.name, check, nothing, "no request was served")
		return
	}
	var line wire.LogLine
	err := eventually(ctx, func(ctx context.Context) error {
		lines, err := l.records(ctx, x)
		if err != nil {
			return err
		}
		switch {
		case len(lines) == 0:
			return fmt.Errorf("%w: request %s in the log of %s", errNotYet, x.served.request, x.name)
		case len(lines) > 1:
			return fmt.Errorf("request %s is %d times in the log of %s", x.served.request, len(lines), x.name)
		}
		line = lines[0]
		return nil
	})
	if err != nil {
		l.add(x.team, x.name, check, failing, "%s", printable(err.Error()))
		return
	}
	l.judge(x.team, x.name, check, fmt.Sprintf("request %s is in the log of %s", line.RequestID, x.name),
		differs("project", line.Project, x.team.project), differs("environment", line.Env, x.name),
		differs("service account", line.Account, x.account), differs("key", string(line.KeyID), string(x.key.ID)),
		differs("status", fmt.Sprint(line.Status), "200"))
	l.tags(x, &line)
}

func (l *launcher) records(ctx context.Context, x *trial) ([]wire.LogLine, error) {
	var out []wire.LogLine
	q := query("tenant", string(x.team.tenant), "request", string(x.served.request), "env", x.name)
	err := l.admin.do(ctx, call{method: http.MethodGet, path: "/logs", query: q, stream: func(r io.Reader) error {
		in := bufio.NewScanner(r)
		in.Buffer(make([]byte, 64<<10), maxLine)
		out = nil
		for in.Scan() {
			var line wire.LogLine
			if err := json.Unmarshal(in.Bytes(), &line); err != nil {
				return fmt.Errorf("read log: %w", err)
			}
			out = append(out, line)
		}
		return in.Err()
	}}, nil)
	return out, err
}

func differs(what, got, want string) string {
	if got == want {
		return ""
	}
	return printable(fmt.Sprintf("%s is %q, want %q", what, got, want))
}

// tags wants to know of the request who answers for it, who pays and what it was
// for. An environment that logs usage only keeps no feature.
func (l *launcher) tags(x *trial, line *wire.LogLine) {
	tenant, _ := l.object(manifest.KindTenant, "", string(x.team.tenant))
	project, _ := l.object(manifest.KindProject, x.team.tenant, x.team.project)
	var missing []string
	for tag, v := range map[string]string{
		manifest.TagOwner: line.KeyOwner, manifest.TagCostCenter: firstOf(project.ProjectSpec.CostCenter, tenant.TenantSpec.CostCenter), manifest.TagService: line.Account,
	} {
		if v == "" {
			missing = append(missing, tag)
		}
	}
	slices.Sort(missing)
	feature := ""
	if x.settings.Log == manifest.LogFull {
		feature = differs("feature", line.Feature, launchName)
	}
	l.judge(x.team, x.name, "tags present", "owner, cost centre and service are known", listed("missing", missing), feature)
}

// booked looks for the two requests in the ledger, under the team's project and
// nowhere else.
func (l *launcher) booked(ctx context.Context, x *trial) {
	const check = "cost booked"
	if x.served.request == "" {
		l.add(x.team, x.name, check, nothing, "no request was served")
		return
	}
	want := 1
	if x.refused.status == http.StatusTooManyRequests {
		want = 2
	}
	var rows []usageOf
	err := eventually(ctx, func(ctx context.Context) error {
		var all []usageOf
		q := query("by", "project,env,service_account,key", "tenant", string(x.team.tenant))
		if err := l.admin.do(ctx, call{method: http.MethodGet, path: "/usage", query: q}, &all); err != nil {
			return err
		}
		rows = slices.DeleteFunc(all, func(r usageOf) bool { return r.Key != string(x.key.ID) })
		served, refused := int64(0), int64(0)
		for _, r := range rows {
			served, refused = served+r.Served, refused+r.RefusedLimit
		}
		if served+refused < int64(want) {
			return fmt.Errorf("%w: the ledger has %d served and %d refused requests of the key", errNotYet, served, refused)
		}
		return nil
	})
	if err != nil {
		l.add(x.team, x.name, check, failing, "%s", printable(err.Error()))
		return
	}
	l.judge(x.team, x.name, check, "on project "+x.team.project+", cost "+firstOf(x.served.cost, "not said"), l.bill(x, rows, int64(want-1))...)
}

// usageOf is a row of the usage report.
type usageOf struct {
	Project      string `json:"project"`
	Env          string `json:"env"`
	Account      string `json:"service_account"`
	Key          string `json:"key"`
	Served       int64  `json:"served"`
	RefusedLimit int64  `json:"refused_limit"`
	Cost         string `json:"cost"`
}

// bill answers what is wrong with the rows of a key that was used twice.
func (l *launcher) bill(x *trial, rows []usageOf, refused int64) []string {
	if len(rows) != 1 {
		return []string{fmt.Sprintf("the key's requests are booked in %d places, want one", len(rows))}
	}
	r := rows[0]
	return []string{
		differs("project", r.Project, x.team.project), differs("environment", r.Env, x.name), differs("service account", r.Account, x.account),
		differs("served", fmt.Sprint(r.Served), "1"), differs("refused by limit", fmt.Sprint(r.RefusedLimit), fmt.Sprint(refused)),
		sameCost(r.Cost, x.served.cost),
	}
}

// sameCost compares what the client was told with what is booked.
func sameCost(booked, told string) string {
	a, ok1 := new(big.Rat).SetString(firstOf(booked, "0"))
	b, ok2 := new(big.Rat).SetString(firstOf(told, strings.TrimSpace(booked), "0"))
	if !ok1 || !ok2 || a.Cmp(b) != 0 {
		return printable(fmt.Sprintf("the client was told a cost of %q, booked is %q", told, booked))
	}
	return ""
}
