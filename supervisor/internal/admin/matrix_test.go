package admin_test

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin/admintest"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin/wire"
)

// columns of the matrix: who asks. token is the node's own, in an installation
// where it may read content.
var columns = []string{"token", "padmin", "pauditor", "owner", "power", "user", "tauditor", "other", "norole"}

// cell is one request with what everybody must get for it. who has a letter per
// column: A allowed, D denied (403), H hidden (404), X allowed and then refused
// for another reason, P allowed and then refused (403) because of whose it is.
type cell struct {
	op, method, path, body string
	status                 int    // when allowed
	kind                   string // read, write, quiet (no event), open (no credential, quiet)
	log                    string // that gets the events, and those of the denied; with a comma, both
	who                    string
}

// matrix is written down by hand, from the words of the roles and not from the
// table of package access. A 501 is the answer of a route whose part this fixture
// does not have (a copy of the trail, exports, key shares): who gets as far as that
// may use it. What the routes answer is for their own tests to show.
var matrix = []cell{
	{"whoami", "GET", "/whoami", "", 200, "quiet", "", "AAAAAAAAA"},
	{"sign-in", "GET", "/sign-in", "", 200, "open", "", "AAAAAAAAA"},
	{"status", "GET", "/status", "", 200, "quiet", "", "AAADDDDDD"},
	{"cluster-status", "GET", "/cluster", "", 200, "quiet", "", "AAADDDDDD"},

	{"list-objects", "GET", "/objects?tenant=acme", "", 200, "read", "tenant/acme", "AAAAAAAHH"},
	{"list-objects", "GET", "/objects?tenant=nobody", "", 200, "read", "", "AAAHHHHHH"},
	{"apply", "POST", "/apply", object("Project", "new", `"environments":{"test":{}}`), 200, "write", "tenant/acme", "AADADDDHH"},
	{"apply", "POST", "/apply", object("ServiceAccount", "new", `"owner":"dev@bank.example"`), 200, "write", "tenant/acme", "AADAADDHH"},
	{"apply", "POST", "/apply", object("Route", "new", `"targets":[{"provider":"main","model":"x"}]`), 200, "write", "tenant/acme", "AADADDDHH"},
	{"apply", "POST", "/apply", object("Provider", "new", `"adapter":"openai","base_url":"https://up.example/v1"`), 200, "write", "tenant/acme", "AADADDDHH"},
	{"apply", "POST", "/apply", `{"objects":[{"kind":"Tenant","name":"acme","tenant_spec":{"owner":"owner@bank.example","cost_center":"CC-9"}}]}`, 200, "write", "tenant/acme", "AADDDDDHH"},
	{"apply", "POST", "/apply", `{"objects":[{"kind":"PriceBook","name":"default","price_book_spec":{"currency":"USD","prices":[]}}]}`, 200, "write", "platform", "AADDDDDDD"},
	{"delete-object", "DELETE", "/objects?kind=Route&tenant=acme&name=fast", "", 204, "write", "tenant/acme", "AADADDDHH"},
	{"delete-object", "DELETE", "/objects?kind=Tenant&name=spare", "", 204, "write", "tenant/spare", "AADHHHHHH"},
	{"sealing-key", "GET", "/sealing-key", "", 200, "read", "platform", "AAAADDDAD"},

	{"create-key", "POST", "/keys", keyBody("prod", ""), 201, "write", "tenant/acme", "AADADDDHH"},
	{"create-key", "POST", "/keys", keyBody("test", ""), 201, "write", "tenant/acme", "AADAADDHH"},
	{"create-key", "POST", "/keys", keyBody("test", `,"personal":true`), 201, "write", "tenant/acme", "XADAAADHH"},
	{"create-key", "POST", "/keys", keyBody("prod", `,"personal":true`), 422, "write", "tenant/acme", "XXDXDDDHH"},
	{"rotate-key", "POST", "/keys/{prod}/rotate", "", 201, "write", "tenant/acme", "AADADDDHH"},
	{"rotate-key", "POST", "/keys/{test}/rotate", "", 201, "write", "tenant/acme", "AADAADDHH"},
	{"rotate-key", "POST", "/keys/{own}/rotate", "", 201, "write", "tenant/acme", "APDPPADHH"},
	{"revoke-key", "POST", "/keys/{prod}/revoke", "", 200, "write", "tenant/acme", "AADADDDHH"},
	{"revoke-key", "POST", "/keys/{test}/revoke", "", 200, "write", "tenant/acme", "AADAADDHH"},
	{"revoke-key", "POST", "/keys/{own}/revoke", "", 200, "write", "tenant/acme", "AADAAADHH"},
	{"revoke-keys", "POST", "/keys/revoke", `{"tenant":"acme","project":"web","service_account":"bot"}`, 200, "write", "tenant/acme", "AADADDDHH"},
	{"list-keys", "GET", "/keys?tenant=acme", "", 200, "read", "tenant/acme", "AAAAAAAHH"},
	{"key-rotations", "GET", "/keys/rotations?tenant=acme", "", 200, "read", "tenant/acme", "AAAAAAAHH"},
	{"list-orphans", "GET", "/orphans?tenant=acme", "", 200, "read", "tenant/acme", "AAAADDAHH"},
	{"unwrap-key", "POST", "/unwrap", `{"token":"made up"}`, 404, "open", "", "AAAAAAAAA"},

	{"usage-report", "GET", "/usage?tenant=acme", "", 200, "read", "tenant/acme", "AAAAAAAHH"},
	{"logs", "GET", "/logs?tenant=acme", "", 200, "read", "tenant/acme", "ADDADDDHH"},
	{"logs", "GET", "/logs?tenant=acme&env=prod", "", 200, "read", "tenant/acme", "ADDADDDHH"},
	{"logs", "GET", "/logs?tenant=acme&env=test", "", 200, "read", "tenant/acme", "ADDAADDHH"},
	{"create-grant", "POST", "/tenants/acme/grants", `{"to":"guest@bank.example","reason":"x","expires_in":60}`, 201, "write", "tenant/acme", "ADDADDDHH"},
	{"list-grants", "GET", "/tenants/acme/grants", "", 200, "read", "tenant/acme", "AAAADDAHH"},
	{"revoke-grant", "DELETE", "/tenants/acme/grants/{grant}", "", 204, "write", "tenant/acme", "ADDADDDHH"},
	{"suspend-tenant", "POST", "/tenants/acme/suspend", "", 200, "write", "tenant/acme", "AADDDDDHH"},
	{"resume-tenant", "POST", "/tenants/acme/resume", "", 200, "write", "tenant/acme", "AADDDDDHH"},

	{"erase-tenant", "POST", "/tenants/acme/erasure", `{}`, 200, "write", "tenant/acme,platform", "AADDDDDHH"},
	{"cancel-erasure", "DELETE", "/tenants/acme/erasure", "", 404, "write", "tenant/acme,platform", "XXDDDDDHH"},
	{"hold-tenant", "POST", "/tenants/acme/hold", `{"hold":true}`, 200, "write", "tenant/acme,platform", "AADDDDDHH"},
	{"list-erasures", "GET", "/erasures", "", 200, "read", "platform", "AAADDDDDD"},
	{"show-erasure", "GET", "/tenants/acme/erasure", "", 200, "read", "tenant/acme", "AAAADDAHH"},
	{"show-certificate", "GET", "/tenants/acme/certificate", "", 404, "read", "tenant/acme", "XXXXDDXHH"},
	{"export-tenant", "GET", "/tenants/acme/export?recipient=" + recipient, "", 501, "read", "tenant/acme", "XDDXDDDHH"},
	{"confirm-export", "POST", "/tenants/acme/export", `{"sha256":"` + strings.Repeat("ab", 32) + `"}`, 409, "write", "tenant/acme", "XDDXDDDHH"},

	{"audit", "GET", "/audit?tenant=acme", "", 501, "read", "tenant/acme", "XXXXDDXHH"},
	{"audit", "GET", "/audit", "", 501, "read", "platform", "XXXDDDDDD"},
	{"verify-audit", "GET", "/audit/verify?tenant=acme", "", 501, "read", "tenant/acme", "XXXXDDXHH"},
	{"verify-audit", "GET", "/audit/verify", "", 501, "read", "platform", "XXXDDDDDD"},
	{"export-audit", "GET", "/audit/export?tenant=acme", "", 501, "read", "tenant/acme", "XXXXDDXHH"},
	{"export-audit", "GET", "/audit/export", "", 501, "read", "platform", "XXXDDDDDD"},
	{"audit-key", "GET", "/audit/key", "", 501, "read", "platform", "XXXXDDXXD"},

	{"create-join-token", "POST", "/cluster/tokens", `{}`, 201, "write", "platform", "AADDDDDDD"},
	{"drain-node", "POST", "/cluster/nodes/n2/drain", `{}`, 200, "write", "platform", "AADDDDDDD"},
	{"transfer-leadership", "POST", "/cluster/transfer", `{}`, 200, "write", "platform", "AADDDDDDD"},
	{"remove-node", "DELETE", "/cluster/nodes/n3", "", 204, "write", "platform", "AADDDDDDD"},
	{"save-snapshot", "GET", "/cluster/snapshot", "", 200, "read", "platform", "AADDDDDDD"},
	{"restore-snapshot", "PUT", "/cluster/snapshot", "snapshot", 200, "write", "platform", "AADDDDDDD"},
	{"save-shares", "POST", "/cluster/shares/escrow", `{"recipient":"` + recipient + `"}`, 501, "write", "platform", "XXDDDDDDD"},
	{"restore-shares", "PUT", "/cluster/shares", `{"sealed":"AA=="}`, 501, "write", "platform", "XXDDDDDDD"},
	{"list-plugins", "GET", "/plugins", "", 200, "read", "platform", "AAADDDDDD"},
	{"add-plugin", "PUT", "/plugins/new", "\x7fELF", 200, "write", "platform", "AADDDDDDD"},
	{"remove-plugin", "DELETE", "/plugins/old", "", 404, "write", "platform", "XXDDDDDDD"},
}

// recipient is an age public key that nobody has the private one of.
const recipient = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"

func object(kind, name, spec string) string {
	field := map[string]string{"Project": "project_spec", "ServiceAccount": "service_account_spec", "Route": "route_spec", "Provider": "provider_spec"}[kind]
	project := ""
	if kind == "ServiceAccount" {
		project = `"project":"web",`
	}
	return fmt.Sprintf(`{"objects":[{"kind":%q,"tenant":"acme",%s"name":%q,%q:{%s}}]}`, kind, project, name, field, spec)
}

func keyBody(env, more string) string {
	return fmt.Sprintf(`{"tenant":"acme","project":"web","env":%q,"service_account":"bot"%s}`, env, more)
}

// TestMatrix walks every operation of the OpenAPI document with every role, and
// wants the answer, the events of the trail, and that nothing changed where
// nothing may.
func TestMatrix(t *testing.T) {
	ops := documented(t, newOffice(t))
	for op, routes := range ops {
		for _, c := range matrix {
			if c.op == op && !c.of(routes) {
				t.Errorf("%s: %s %s is not %s", op, c.method, c.path, routes)
			}
		}
		if !slices.ContainsFunc(matrix, func(c cell) bool { return c.op == op }) {
			t.Errorf("%s (%s) is not in the matrix: say who may", op, routes)
		}
	}
	for _, c := range matrix {
		if ops[c.op] == "" {
			t.Errorf("the matrix has %s, the API has not", c.op)
		}
		t.Run(c.op+" "+c.method+" "+c.path, func(t *testing.T) {
			t.Parallel()
			o := newOffice(t)
			c.check(t, o, "made up", 'U')
			for i, who := range columns {
				if c.check(t, o, who, c.who[i]); strings.Contains("AXP", c.who[i:i+1]) && c.kind == "write" {
					o = newOffice(t)
				}
			}
		})
	}
}

// documented answers "METHOD /path" by operation id.
func documented(t *testing.T, o *office) map[string]string {
	t.Helper()
	raw, err := o.API.OpenAPI()
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Paths map[string]map[string]struct {
			ID string `json:"operationId"`
		}
	}
	if err := json.Unmarshal(raw, &doc); err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for path, methods := range doc.Paths {
		for method, op := range methods {
			out[op.ID] = strings.ToUpper(method) + " " + strings.TrimPrefix(path, "/admin/v1")
		}
	}
	return out
}

// of reports whether the cell's request is for the route.
func (c cell) of(route string) bool {
	path, _, _ := strings.Cut(c.path, "?")
	method, pattern, _ := strings.Cut(route, " ")
	have, want := strings.Split(path, "/"), strings.Split(pattern, "/")
	return method == c.method && slices.EqualFunc(have, want, func(h, w string) bool { return h == w || strings.HasPrefix(w, "{") })
}

func (c cell) check(t *testing.T, o *office, who string, letter byte) {
	t.Helper()
	before := o.digest()
	token := who
	if who == "token" {
		token = admintest.Token
	}
	var body any
	if c.body != "" {
		body = c.body
	}
	w := o.ask(token, c.method, c.path, body, wire.Reason, "because of a test")
	status, events := c.wants(letter)
	if letter == 'X' && (w.Code < 400 || w.Code == http.StatusForbidden) || letter != 'X' && w.Code != status {
		t.Errorf("as %s: %d, want %c (%d): %s", who, w.Code, letter, status, w.Body)
	}
	if got := o.said(); !slices.Equal(got, events) {
		t.Errorf("as %s: events\n\t%s\nwant\n\t%s", who, strings.Join(got, "\n\t"), strings.Join(events, "\n\t"))
	}
	if strings.Contains("AXP", string(letter)) && c.kind != "read" {
		return
	}
	if o.digest() != before {
		t.Errorf("as %s: the state is another one", who)
	}
	if calls := o.fleet.Calls(); strings.Contains("DHU", string(letter)) && len(calls) > 0 {
		t.Errorf("as %s: asked the cluster for %q", who, calls)
	}
}

// wants are the status and the events of a letter.
func (c cell) wants(letter byte) (status int, events []string) {
	say := func(phase, result string) {
		for log := range strings.SplitSeq(cmp.Or(c.log, "platform"), ",") {
			events = append(events, log+" "+phase+" "+c.op+" "+result)
		}
	}
	status = map[byte]int{'A': c.status, 'X': c.status, 'D': http.StatusForbidden, 'P': http.StatusForbidden, 'H': http.StatusNotFound, 'U': http.StatusUnauthorized}[letter]
	result := map[byte]string{'A': "done", 'X': "failed", 'P': "denied", 'D': "denied", 'H': "denied"}[letter]
	switch {
	case c.kind == "open":
		return c.status, nil
	case c.kind == "quiet" || letter == 'U':
	case c.kind == "write" && strings.Contains("AXP", string(letter)):
		say("intent", "pending")
		say("outcome", result)
	default:
		say("single", result)
	}
	slices.Sort(events)
	return status, events
}
