package configs

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

const goodIssuer = `node_id: n1
allow_plain: true
access:
  issuers:
  - issuer: https://login.bank.example
    client_id: cli
    audiences: {admin: [cli], data: [api]}
    roles: [{group: g, role: user, tenant: acme}]
    places: [{tenant: acme, project: p, env: test, service_account: people}]
`

func TestAccessIsCompleted(t *testing.T) {
	s, err := Decode("s.yaml", strings.NewReader(goodIssuer))
	if err != nil {
		t.Fatal(err)
	}
	i := s.Access.Issuers[0]
	if !slices.Equal(i.Algorithms, []string{"RS256", "ES256"}) || !slices.Equal(i.Scopes, []string{"openid", "email"}) ||
		i.Claims != (Claims{Email: "email", Groups: "groups", Tenant: "tenant"}) {
		t.Errorf("completed: %+v", i)
	}
	if s.Access.Token != TokenPlatform || s.Access.TokenReadsContent() {
		t.Errorf("with an issuer the token reaches %q", s.Access.Token)
	}
	if s, err = Decode("s.yaml", strings.NewReader("node_id: n1\nallow_plain: true\n")); err != nil || s.Access.Token != TokenAll || !s.Access.TokenReadsContent() {
		t.Errorf("without an issuer the token reaches %q, %v", s.Access.Token, err)
	}
	if s, err = Decode("s.yaml", strings.NewReader("node_id: n1\nallow_plain: true\naccess: {token: platform}\n")); err != nil || s.Access.TokenReadsContent() {
		t.Errorf("a token that was narrowed: %q, %v", s.Access.Token, err)
	}
	if d := Defaults(); !d.Access.TokenReadsContent() {
		t.Error("a configuration made in code without an issuer does not let the token read")
	}
}

// TestAccessRefuses is V27 for identity providers: what is left empty never
// means everybody, and every refusal names its field.
func TestAccessRefuses(t *testing.T) {
	const at = "access.issuers[0]"
	for _, tt := range []struct{ name, old, new, want string }{
		{"no issuer", "issuer: https://login.bank.example", "issuer: \"\"", at + ".issuer: is missing"},
		{"http", "https://login", "http://login", at + ".issuer: want https"},
		{"no host", "https://login.bank.example", "https://", at + ".issuer: \"https://\" is no issuer"},
		{"query", "bank.example", "bank.example?x=1", at + ".issuer: \"https://login.bank.example?x=1\" is no issuer"},
		{"password", "https://login", "https://a:b@login", " is no issuer"},
		{"scheme", "https://login", "file://login", at + ".issuer: want https"},
		{"no client", "client_id: cli", "client_id: \"\"", at + ".client_id: is missing"},
		{"no audience", "audiences: {admin: [cli], data: [api]}", "audiences: {}", at + ".audiences: want an audience under admin or data"},
		{"empty audience", "admin: [cli]", `admin: [""]`, at + ".audiences.admin[0]: is empty"},
		{"empty data audience", "data: [api]", `data: [api, " "]`, at + ".audiences.data[1]: is empty"},
		{"none", "client_id: cli", "client_id: cli\n    algorithms: [none]", at + `.algorithms[0]: "none" cannot be trusted`},
		{"none in capitals", "client_id: cli", "client_id: cli\n    algorithms: [None]", at + `.algorithms[0]: "None" cannot be trusted`},
		{"shared secret", "client_id: cli", "client_id: cli\n    algorithms: [RS256, HS256]", at + `.algorithms[1]: "HS256" cannot be trusted`},
		{"scopes", "client_id: cli", "client_id: cli\n    scopes: [email]", at + ".scopes: want openid among them"},
		{"ca without tls", "issuer: https://login.bank.example", "issuer: http://127.0.0.1:5556\n    ca_file: /a", at + ".ca_file: is of no use"},
		{"no roles", "roles: [{group: g, role: user, tenant: acme}]", "roles: []", at + ".roles: want a rule"},
		{"rule for all", "group: g, role", "role", at + ".roles[0]: want a group, or a claim and its value"},
		{"empty group", "group: g", `group: ""`, at + ".roles[0]: want a group, or a claim and its value"},
		{"half a claim", "group: g, role", "claim: c, role", at + ".roles[0]: want both a claim and its value"},
		{"group and claim", "group: g, role", "group: g, claim: c, value: v, role", at + ".roles[0]: want either"},
		{"no role", "role: user, tenant", "tenant", at + ".roles[0].role: is missing"},
		{"role", "role: user", "role: root", at + `.roles[0].role: "root" is no role`},
		{"role of nothing", "role: user, tenant: acme", "role: tenant-owner", at + ".roles[0].tenant: is missing"},
		{"admin of a tenant", "role: user", "role: platform-admin", at + ".roles[0].role: platform-admin is a role of no tenant"},
		{"both tenants", "tenant: acme}]\n    places", "tenant: acme, tenant_claim: true}]\n    places", at + ".roles[0].tenant: want either"},
		{"tenant name", "tenant: acme}]\n    places", "tenant: ACME}]\n    places", at + `.roles[0].tenant: "ACME" is no name`},
		{"no place", "places: [{tenant: acme, project: p, env: test, service_account: people}]", "places: []", at + ".places: want a rule"},
		{"place of nothing", "{tenant: acme, project", "{project", at + ".places[0].tenant: is missing"},
		{"no project", "project: p, env", "env", at + ".places[0].project: is missing"},
		{"no account", ", service_account: people", "", at + ".places[0].service_account: is missing"},
		{"env", "env: test", "env: staging", at + `.places[0].env: "staging" is no environment`},
		{"places without data", ", data: [api]", "", at + ".places: are of no use without audiences.data"},
		{"reach", "access:\n", "access:\n  token: most\n", `access.token: "most" is no reach`},
		{"field", "client_id", "clientid", "unknown field; did you mean client_id?"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			in := strings.Replace(goodIssuer, tt.old, tt.new, 1)
			if in == goodIssuer {
				t.Fatal("the case changes nothing")
			}
			_, err := Decode("s.yaml", strings.NewReader(in))
			var errs Errors
			if !errors.As(err, &errs) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got\n%v\nwant\n%s", err, tt.want)
			}
		})
	}
	twice := goodIssuer + goodIssuer[strings.Index(goodIssuer, "  - issuer"):]
	if _, err := Decode("s.yaml", strings.NewReader(twice)); err == nil || !strings.Contains(err.Error(), "access.issuers[1].issuer: is the same") {
		t.Errorf("one issuer twice: %v", err)
	}
}
