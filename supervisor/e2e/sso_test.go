package e2e_test

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bulkhead-ai/bulkhead/supervisor/e2e/idptest"
)

// hello is a request of people and services alike.
const hello = `{"model":"model","messages":[{"role":"user","content":"hello"}]}`

// accessOf is the section of a node's configuration for an issuer.
func accessOf(issuer, rules string) string {
	return fmt.Sprintf(`access:
  issuers:
    - issuer: %s
      client_id: %s
      scopes: [openid, email, groups, offline_access]
      audiences: {admin: [%[2]s], data: [%s]}
      roles:
%s
      places:
        - {tenant: fraud, project: app, env: test, service_account: bot}
`, issuer, idptest.AdminClient, idptest.DataClient, rules)
}

// rulesByEmail are for an issuer that knows no groups.
const rulesByEmail = `        - {claim: email, value: admin@bank.example, role: platform-admin}
        - {claim: email, value: revision@bank.example, role: auditor}
        - {claim: email, value: olga@fraud.example, role: tenant-owner, tenant: fraud}
        - {claim: email, value: dan@fraud.example, role: user, tenant: fraud}
        - {claim: email, value: ruth@risk.example, role: tenant-owner, tenant: risk}`

// rulesByGroup are for an issuer that does.
const rulesByGroup = `        - {group: platform, role: platform-admin}
        - {group: fraud-leads, role: tenant-owner, tenant: fraud}`

// TestPeopleOfABank: people sign in with Dex, each sees what is theirs, and what
// somebody reads of a tenant is in that tenant's own trail.
func TestPeopleOfABank(t *testing.T) {
	t.Parallel()
	dex := idps.StartDex(t, idptest.DexConfig{People: []string{
		"admin@bank.example", "revision@bank.example", "olga@fraud.example", "dan@fraud.example", "ruth@risk.example", "nobody@bank.example",
	}})
	n, up := startServer(t, accessOf(dex.Issuer, rulesByEmail)), startUpstream(t)
	fraud, risk := n.tenant("fraud", "{}", up), n.tenant("risk", "{}", up)
	asked := n.chat(200, fraud.Key, hello)
	n.chat(200, risk.Key, hello)

	admin, olga, dev := n.person("admin@bank.example"), n.person("olga@fraud.example"), n.person("dan@fraud.example")
	admin.signIn()
	olga.signIn("--device")
	dev.signIn()
	if r := n.person("nobody@bank.example").run("key", "list"); r.code != 2 || !strings.Contains(r.err, "bulkhead login") {
		t.Errorf("without a sign-in: exit %d %s", r.code, r.err)
	}

	// An owner: own keys, own log, and nobody else's.
	made := decode[key](t, olga.must("key", "create", "--tenant", "fraud", "--project", "app", "--env", "prod", "--service-account", "bot", "-o", "json"))
	n.chat(200, made.Key, hello)
	if list := olga.must("key", "list", "-o", "json"); strings.Contains(list, risk.ID) || !strings.Contains(list, made.ID) {
		t.Errorf("an owner lists %s", list)
	}
	if log := olga.must("logs", "--tenant", "fraud", "-o", "json"); !strings.Contains(log, asked.id()) {
		t.Errorf("an owner reads %s", log)
	}
	olga.refused(`there is no tenant "risk"`, "logs", "--tenant", "risk")
	olga.refused(`there is no tenant "absent"`, "logs", "--tenant", "absent")
	olga.refused("", "tenant", "suspend", "fraud")

	// Who runs the platform does not read what tenants ask, but with their word.
	admin.refused("", "logs", "--tenant", "fraud", "--reason", "curious")
	olga.must("grant", "create", "--tenant", "fraud", "--to", admin.email, "--expires-in", "1h", "--reason", "case 7")
	admin.refused("reason", "logs", "--tenant", "fraud")
	if log := admin.must("logs", "--tenant", "fraud", "--reason", "case 7: slow answers", "-o", "json"); !strings.Contains(log, asked.id()) {
		t.Errorf("with a grant: %s", log)
	}
	admin.refused("", "logs", "--tenant", "risk", "--reason", "case 7")
	trail := olga.must("audit", "--tenant", "fraud", "--action", "logs", "-o", "json")
	if !strings.Contains(trail, "case 7: slow answers") || !strings.Contains(trail, admin.email) || !strings.Contains(trail, `"denied"`) {
		t.Errorf("the tenant's trail does not tell who read: %s", trail)
	}

	// A user: a short-lived key of their own in test, nothing in prod.
	own := decode[key](t, dev.must("key", "create", "--personal", "--tenant", "fraud", "--project", "app", "--env", "test", "--service-account", "bot", "-o", "json"))
	n.chat(200, own.Key, hello)
	dev.refused("", "key", "create", "--personal", "--tenant", "fraud", "--project", "app", "--env", "prod", "--service-account", "bot")
	dev.refused("", "logs", "--tenant", "fraud")
	if list := dev.must("key", "list", "-o", "json"); strings.Contains(list, made.ID) || !strings.Contains(list, own.ID) {
		t.Errorf("a user lists %s", list)
	}

	// An auditor reads the whole trail, proves it whole, and changes nothing.
	auditor := n.person("revision@bank.example")
	auditor.signIn()
	auditor.must("audit", "verify")
	auditor.refused("", "logs", "--tenant", "fraud", "--reason", "audit")
	auditor.refused("", "key", "revoke", made.ID)
	n.chat(200, made.Key, hello)

	// The token of the node runs the platform only, since there are people now.
	if r := n.run("", "logs", "--tenant", "fraud"); r.code != 1 {
		t.Errorf("the node's token reads a tenant's log: %d %s", r.code, r.out)
	}
	olga.must("logout")
	if r := olga.run("key", "list"); r.code != 2 {
		t.Errorf("after the logout: exit %d %s", r.code, r.err)
	}
}

// TestTokensThatAreNone: whatever is wrong with a person's token, the answer is
// 401 on both ports, nothing is called and nothing is booked; what is right goes
// through, booked on the person's place.
func TestTokensThatAreNone(t *testing.T) {
	t.Parallel()
	people := []string{"dan@fraud.example", "ruth@risk.example"}
	dex := idps.StartDex(t, idptest.DexConfig{People: people})
	brief := idps.StartDex(t, idptest.DexConfig{People: people, Life: "1s"})
	n, up := startServer(t, accessOf(dex.Issuer, rulesByEmail)+"  token: all\n"), startUpstream(t)
	n.tenant("fraud", "{}", up)
	admin, data := dex.Token(idptest.AdminClient, people[0]), dex.Token(idptest.DataClient, people[0])

	line := n.logged("fraud", n.chat(200, data, hello).id())
	if line.KeyOwner != people[0] || line.Env != "test" || line.Account != "bot" || !strings.HasPrefix(line.KeyID, "person_") {
		t.Errorf("a person's request is logged as %+v", line)
	}
	if a := n.get("/admin/v1/whoami", admin); a.status != 200 || !strings.Contains(a.body, people[0]) {
		t.Errorf("whoami: %s", a)
	}
	calls, _, _ := up.charged()

	pem := dex.PublicKey()
	modulus, err := base64.RawURLEncoding.DecodeString(pem["n"])
	check(t, err)
	for port, good := range map[string]string{"admin": admin, "data": data} {
		f := take(t, good)
		other := dex.Token(idptest.OtherClient, people[0])
		bad := map[string]string{
			"another audience":       other,
			"the other port's":       map[string]string{"admin": data, "data": admin}[port],
			"another issuer":         brief.Token(map[string]string{"admin": idptest.AdminClient, "data": idptest.DataClient}[port], people[0]),
			"alg none":               f.unsigned(),
			"HS256 with the modulus": f.hmac(modulus, f.encoded[1]),
			"HS256 with the JWK":     f.hmac([]byte(pem["n"]), f.encoded[1]),
			"tenant claim changed":   f.with(map[string]any{"tenant": "risk"}),
			"e-mail changed":         f.with(map[string]any{"email": people[1]}),
			"expiry changed":         f.with(map[string]any{"exp": time.Now().Add(240 * time.Hour).Unix()}),
			"signature of another":   f.encoded[0] + "." + f.encoded[1] + "." + take(t, other).encoded[2],
			"no signature":           f.encoded[0] + "." + f.encoded[1] + ".",
			"cut":                    good[:len(good)-4],
			"kid of a file":          f.part(map[string]any{"alg": "RS256", "kid": "../../../../dev/null"}) + "." + f.encoded[1] + "." + f.encoded[2],
			"made up":                "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4In0.AAAA",
		}
		for what, token := range bad {
			var a answer
			if port == "admin" {
				a = n.get("/admin/v1/keys", token)
			} else {
				a = n.post(token, "chat/completions", hello)
			}
			if a.status != http.StatusUnauthorized {
				t.Errorf("%s port, %s: %s", port, what, a)
			}
		}
	}
	if after, _, _ := up.charged(); after != calls {
		t.Errorf("the upstream was called %d times for tokens that are none", after-calls)
	}
}

// TestExpiredToken: a token is good until it expires, and not a moment more,
// though it was seen before.
func TestExpiredToken(t *testing.T) {
	t.Parallel()
	dex := idps.StartDex(t, idptest.DexConfig{People: []string{"dan@fraud.example"}, Life: "12s"})
	n, up := startServer(t, accessOf(dex.Issuer, rulesByEmail)), startUpstream(t)
	n.chat(200, n.tenant("fraud", "{}", up).Key, hello) // starts what takes time
	token := dex.Token(idptest.DataClient, "dan@fraud.example")
	n.chat(200, token, hello)
	expires := time.Unix(int64(take(t, token).claims["exp"].(float64)), 0)
	eventually(t, "the token is refused", func() error {
		a := n.post(token, "chat/completions", hello)
		if a.status == http.StatusUnauthorized {
			if time.Now().Before(expires) {
				t.Errorf("refused before its time: %s", a)
			}
			return nil
		}
		if time.Now().After(expires.Add(time.Second)) && a.status != http.StatusUnauthorized {
			t.Fatalf("an expired token: %s", a)
		}
		return fmt.Errorf("%s", a)
	})
}

// TestIssuerRotatesAndDies: new keys are found without a restart. While the
// issuer is down, people whose key is known go on; the others get 503, never 401
// and never in; services with keys notice nothing.
func TestIssuerRotatesAndDies(t *testing.T) {
	t.Parallel()
	dex := idps.StartDex(t, idptest.DexConfig{People: []string{"dan@fraud.example", "olga@fraud.example"}, Rotate: "4s"})
	n, up := startServer(t, accessOf(dex.Issuer, rulesByEmail)), startUpstream(t)
	k := n.tenant("fraud", "{}", up)
	first := dex.Token(idptest.DataClient, "dan@fraud.example")
	n.chat(200, first, hello)
	kid := take(t, first).head["kid"]
	var second string
	eventually(t, "Dex signs with another key", func() error {
		if second = dex.Token(idptest.DataClient, "olga@fraud.example"); take(t, second).head["kid"] == kid {
			return fmt.Errorf("still %v of %v", kid, dex.KeyIDs())
		}
		return nil
	})
	eventually(t, "the new key is known", func() error { // asked for at most so often
		if a := n.post(second, "chat/completions", hello); a.status != 200 {
			if a.status != http.StatusServiceUnavailable {
				t.Fatalf("with a new key: %s", a)
			}
			return fmt.Errorf("%s", a)
		}
		return nil
	})
	n.chat(200, first, hello)

	dex.Stop()
	n.chat(200, first, hello)
	n.chat(200, second, hello)
	n.chat(200, k.Key, hello)
	n.kill()
	n.start() // knows no key of the issuer now
	for _, token := range []string{first, second, take(t, first).with(map[string]any{"email": "x@y.example"})} {
		if a := n.post(token, "chat/completions", hello); a.status != http.StatusServiceUnavailable {
			t.Errorf("with the issuer down: %s", a)
		}
		if a := n.get("/admin/v1/whoami", token); a.status != http.StatusServiceUnavailable {
			t.Errorf("admin port with the issuer down: %s", a)
		}
	}
	n.chat(200, k.Key, hello)
	n.must("", "key", "list")
	dex.Start()
	fresh := dex.Token(idptest.DataClient, "dan@fraud.example")
	eventually(t, "people come in again", func() error {
		if a := n.post(fresh, "chat/completions", hello); a.status != 200 {
			return fmt.Errorf("%s", a)
		}
		return nil
	})
}

// TestSAML: a SAML provider comes in through Dex, and its groups are roles.
func TestSAML(t *testing.T) {
	t.Parallel()
	dex := idps.StartDex(t, idptest.DexConfig{SAML: []idptest.Person{
		{Email: "olga@fraud.example", Groups: []string{"fraud-leads", "canteen"}},
		{Email: "guest@bank.example", Groups: []string{"canteen"}},
	}})
	n := startServer(t, accessOf(dex.Issuer, rulesByGroup))
	n.tenant("fraud", "{}", nil)
	olga, guest := n.person("olga@fraud.example"), n.person("guest@bank.example")
	olga.signIn()
	guest.signIn()
	me := decode[struct {
		Email   string
		Tenants []struct{ Tenant, Role string }
	}](t, olga.must("whoami", "-o", "json"))
	if me.Email != olga.email || len(me.Tenants) != 1 || me.Tenants[0].Role != "tenant-owner" || me.Tenants[0].Tenant != "fraud" {
		t.Errorf("signed in through SAML as %+v", me)
	}
	olga.must("key", "list", "--tenant", "fraud")
	guest.refused("", "key", "list", "--tenant", "fraud")
}

// TestAnotherProvider: the npm package oidc-provider signs with ES256, has groups
// and a tenant claim, and rotates refresh tokens.
func TestAnotherProvider(t *testing.T) {
	t.Parallel()
	op := idptest.StartOIDCProvider(t, []idptest.Person{
		{Email: "olga@fraud.example", Groups: []string{"leads"}, Tenant: "fraud"},
		{Email: "eve@other.example", Groups: []string{"leads"}, Tenant: "absent"},
	})
	n := startServer(t, accessOf(op.Issuer, "        - {group: leads, role: tenant-owner, tenant_claim: true}"))
	n.tenant("fraud", "{}", nil)
	for i, how := range [][]string{nil, {"--device"}} {
		olga := n.person("olga@fraud.example")
		olga.signIn(how...)
		if out := olga.must("whoami", "-o", "json"); !strings.Contains(out, `"fraud"`) {
			t.Errorf("sign-in %d: %s", i, out)
		}
		token := take(t, olga.bearer())
		if a := n.get("/admin/v1/keys", token.with(map[string]any{"tenant": "risk"})); a.status != http.StatusUnauthorized {
			t.Errorf("with another tenant in the claim: %s", a)
		}
		if alg := token.head["alg"]; !slices.Contains([]any{"ES256"}, alg) {
			t.Errorf("signed with %v", alg)
		}
	}
	eve := n.person("eve@other.example")
	eve.signIn()
	eve.refused("", "key", "list", "--tenant", "fraud")
}
