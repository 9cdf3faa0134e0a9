package e2e_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// ran is what a command line did.
type ran struct {
	out, err string
	code     int
}

// run runs the command line against the node.
func (n *node) run(stdin string, args ...string) ran {
	n.t.Helper()
	cmd := exec.Command(program("bulkhead"), args...)
	cmd.Env = append(os.Environ(), "BULKHEAD_ADDR="+n.env["BULKHEAD_ADDR"], "BULKHEAD_TOKEN="+n.env["BULKHEAD_TOKEN"])
	cmd.Env = append(cmd.Env, n.more...)
	cmd.Stdin = strings.NewReader(stdin)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		n.t.Fatalf("bulkhead %s: %v", strings.Join(args, " "), err)
	}
	return ran{out.String(), errs.String(), cmd.ProcessState.ExitCode()}
}

// must is run for commands that have to work; it answers their output.
func (n *node) must(stdin string, args ...string) string {
	n.t.Helper()
	r := n.run(stdin, args...)
	if r.code != 0 {
		n.t.Fatalf("bulkhead %s: exit %d: %s%s", strings.Join(args, " "), r.code, r.out, r.err)
	}
	return r.out
}

// apply puts desired state in force.
func (n *node) apply(format string, args ...any) {
	n.t.Helper()
	n.must(fmt.Sprintf(format, args...), "apply", "-f", "-")
}

// key is an API key.
type key struct{ ID, Key string }

// key creates one for the service account `bot` of project `app`.
func (n *node) key(tenant, env string, more ...string) key {
	n.t.Helper()
	args := append([]string{"key", "create", "--tenant", tenant, "--project", "app", "--env", env, "--service-account", "bot", "-o", "json"}, more...)
	return decode[key](n.t, n.must("", args...))
}

// tenant makes a tenant with project app (prod and test), service account bot,
// and the route `model` to the openai adapter at the upstream. It answers a key
// of prod. limits is a flow mapping for the tenant, such as {concurrency: 1}.
func (n *node) tenant(name, limits string, up *upstream) key {
	n.t.Helper()
	n.apply(`kind: Tenant
metadata: {name: %[1]s}
spec: {owner: owner@%[1]s.example, cost_center: CC-1, idle_timeout: "0s", limits: %[2]s}
---
kind: Project
metadata: {name: app, tenant: %[1]s}
spec: {environments: {prod: {}, test: {}}}
---
kind: ServiceAccount
metadata: {name: bot, tenant: %[1]s, project: app}
spec: {owner: dev@%[1]s.example}
`, name, limits)
	if up != nil {
		n.provider(name, "up", up, "")
	}
	return n.key(name, "prod")
}

// provider makes a provider of the openai adapter and a route with its name, or
// `model` for the provider `up`. more is appended to the spec.
func (n *node) provider(tenant, name string, up *upstream, more string) {
	n.t.Helper()
	model := name
	if name == "up" {
		model = "model"
	}
	n.apply(`kind: Provider
metadata: {name: %[2]s, tenant: %[1]s}
spec: {adapter: openai, base_url: "%[3]s/v1", allow_private: true%[5]s}
---
kind: Route
metadata: {name: %[4]s, tenant: %[1]s}
spec: {targets: [{provider: %[2]s, model: upstream-model}]}
`, tenant, name, up.url, model, more)
}

// usageRow is a row of `usage report`.
type usageRow struct {
	Tenant, Project, Env, Key, Model string

	Requests     int64
	Served       int64
	Failed       int64
	TimedOut     int64 `json:"timed_out"`
	Cancelled    int64
	RefusedLimit int64 `json:"refused_limit"`
	RefusedPol   int64 `json:"refused_policy"`
	InputTokens  int64 `json:"input_tokens"`
	OutputTokens int64 `json:"output_tokens"`
	Cost         string
	Unknown      int64
	Unpriced     int64
}

func (n *node) usage(by string, more ...string) []usageRow {
	n.t.Helper()
	return decode[[]usageRow](n.t, n.must("", append([]string{"usage", "report", "--by", by, "-o", "json"}, more...)...))
}

// booked waits until the ledger holds n requests of a tenant and answers its row.
func (n *node) booked(tenant string, requests int64) usageRow {
	n.t.Helper()
	var row usageRow
	eventually(n.t, fmt.Sprintf("%d requests of %s are booked", requests, tenant), func() error {
		row = usageRow{Tenant: tenant}
		for _, r := range n.usage("tenant", "--tenant", tenant) {
			row = r
		}
		if row.Requests != requests {
			return fmt.Errorf("booked: %+v", row)
		}
		return nil
	})
	return row
}

// logLine is a line of `logs -o json`.
type logLine struct {
	RequestID    string `json:"request_id"`
	Tenant       string
	Project      string
	Env          string
	Account      string `json:"service_account"`
	KeyID        string `json:"key_id"`
	KeyOwner     string `json:"key_owner"`
	User         string
	Feature      string
	Model        string
	Provider     string
	Status       int
	Outcome      string
	Code         string
	Attempts     int
	InputTokens  int64 `json:"input_tokens"`
	OutputTokens int64 `json:"output_tokens"`
	Cost         string
}

func (n *node) requests(tenant string) []logLine {
	n.t.Helper()
	out := []logLine{}
	for line := range strings.Lines(n.must("", "logs", "--tenant", tenant, "--limit", "100000", "-o", "json")) {
		out = append(out, decode[logLine](n.t, line))
	}
	return out
}

// logged waits until the tenant's log has the request and answers its line.
func (n *node) logged(tenant, request string) logLine {
	n.t.Helper()
	var found logLine
	eventually(n.t, "request "+request+" is in the log", func() error {
		out := strings.TrimSpace(n.must("", "logs", "--tenant", tenant, "--request", request, "-o", "json"))
		if out == "" {
			return errors.New("not there")
		}
		found = decode[logLine](n.t, strings.SplitN(out, "\n", 2)[0])
		return nil
	})
	return found
}

func decode[T any](t testing.TB, text string) T {
	t.Helper()
	var v T
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%v in %q", err, text)
	}
	return v
}
