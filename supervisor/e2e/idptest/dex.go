package idptest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Password is everybody's.
const Password = "password"

// passwordHash is bcrypt of Password.
const passwordHash = "$2a$10$2b2cU8CPhOTaGrs1HRQuAueS7JTT5ZHsHSzYiFPm1leZck7Mc8T4W"

// Clients of the providers: public ones, without a secret.
const (
	AdminClient = "bulkhead-cli"
	DataClient  = "bulkhead-data"
	OtherClient = "another-application"
)

// Dex is a running Dex.
type Dex struct {
	Issuer string
	t      testing.TB
	p      process
	saml   *samlProvider
}

// DexConfig says who is known.
type DexConfig struct {
	People []string // e-mail addresses
	SAML   []Person // known to a SAML provider behind Dex, which then knows nobody itself
	// Rotate is how long a signing key is in use, as Dex writes durations; "" =
	// 6h.
	Rotate string
	// Life is how long an ID token is good; "" = 1h.
	Life string
}

// Person is somebody whom a provider knows with groups.
type Person struct {
	Email  string
	Groups []string
	Tenant string // claim; OIDCProvider only
}

// StartDex starts Dex on loopback, with its storage in memory.
func (p *Programs) StartDex(t testing.TB, cfg DexConfig) *Dex {
	t.Helper()
	p.build(t)
	addr, dir := freePort(t), t.TempDir()
	d := &Dex{Issuer: "http://" + addr + "/dex", t: t}
	file := filepath.Join(dir, "dex.yaml")
	text := dexConfig(addr, d.Issuer, cfg)
	if cfg.SAML != nil {
		d.saml = p.startSAML(t, d.Issuer, cfg.SAML)
		text += d.saml.connector(d.Issuer)
	}
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	d.p = process{t: t, name: filepath.Join(p.dir, "dex"), args: []string{"serve", file}, log: filepath.Join(dir, "dex.log")}
	t.Cleanup(func() { d.Stop(); d.p.tell() })
	d.Start()
	return d
}

func dexConfig(addr, issuer string, cfg DexConfig) string {
	var b strings.Builder
	rotate, life := firstOf(cfg.Rotate, "6h"), firstOf(cfg.Life, "1h")
	fmt.Fprintf(&b, `issuer: %s
storage: {type: memory}
web: {http: %s}
logger: {level: error}
expiry: {signingKeys: %s, idTokens: %s}
staticClients:
`, issuer, addr, rotate, life)
	for _, id := range []string{AdminClient, DataClient, OtherClient} {
		fmt.Fprintf(&b, "- {id: %s, name: %s, public: true}\n", id, id)
	}
	if cfg.SAML != nil { // the only way in: nobody is asked which
		b.WriteString("oauth2: {skipApprovalScreen: true}\n")
		return b.String()
	}
	b.WriteString("oauth2: {skipApprovalScreen: true, passwordConnector: local}\nenablePasswordDB: true\nstaticPasswords:\n")
	for i, email := range cfg.People {
		fmt.Fprintf(&b, "- {email: %q, hash: %q, username: %q, userID: user-%d}\n", email, passwordHash, email, i)
	}
	return b.String()
}

// Start starts a Dex that was stopped. With its storage in memory it has new
// keys then.
func (d *Dex) Start() { d.p.start(d.Issuer + "/.well-known/openid-configuration") }

// Stop takes Dex down.
func (d *Dex) Stop() { d.p.stop() }

// Token gets a person's ID token for a client, with the password grant.
func (d *Dex) Token(client, email string) string {
	d.t.Helper()
	resp, err := http.PostForm(d.Issuer+"/token", url.Values{
		"grant_type": {"password"}, "client_id": {client}, "scope": {"openid email profile groups"},
		"username": {email}, "password": {Password},
	})
	if err != nil {
		d.t.Fatal(err)
	}
	defer resp.Body.Close()
	var answer struct {
		IDToken string `json:"id_token"`
		Error   string `json:"error_description"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil || answer.IDToken == "" {
		d.t.Fatalf("token of %s for %s: %s %q %v", email, client, resp.Status, answer.Error, err)
	}
	return answer.IDToken
}

// KeyIDs are the ids of the keys that Dex publishes.
func (d *Dex) KeyIDs() (ids []string) {
	d.t.Helper()
	for _, k := range d.keys() {
		ids = append(ids, k["kid"])
	}
	return ids
}

// PublicKey is the newest published key as a JWK.
func (d *Dex) PublicKey() map[string]string { return d.keys()[0] }

func (d *Dex) keys() []map[string]string {
	d.t.Helper()
	resp, err := http.Get(d.Issuer + "/keys")
	if err != nil {
		d.t.Fatal(err)
	}
	defer resp.Body.Close()
	var set struct{ Keys []map[string]string }
	if err := json.NewDecoder(resp.Body).Decode(&set); err != nil || len(set.Keys) == 0 {
		d.t.Fatalf("keys of Dex: %v", err)
	}
	return set.Keys
}
