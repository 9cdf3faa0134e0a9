package idptest

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// samlProvider is a SAML identity provider that Dex sends people to.
type samlProvider struct {
	url string
	p   process
	ca  string // PEM of the certificate that signs its assertions
}

func (p *Programs) startSAML(t testing.TB, dexIssuer string, people []Person) *samlProvider {
	t.Helper()
	addr, dir := freePort(t), t.TempDir()
	s := &samlProvider{url: "http://" + addr}
	list, err := json.Marshal(people)
	if err != nil {
		t.Fatal(err)
	}
	cert := filepath.Join(dir, "cert.pem")
	s.p = process{
		t: t, name: filepath.Join(p.dir, "samlidp"), log: filepath.Join(dir, "saml.log"),
		args: []string{"-listen", addr, "-entity", dexIssuer, "-acs", dexIssuer + "/callback", "-cert", cert, "-people", string(list), "-password", Password},
	}
	t.Cleanup(func() { s.p.stop(); s.p.tell() })
	s.p.start(s.url + "/metadata")
	pem, err := os.ReadFile(cert)
	if err != nil {
		t.Fatal(err)
	}
	s.ca = base64.StdEncoding.EncodeToString(pem)
	return s
}

// connector is the part of Dex's configuration that names the provider.
func (s *samlProvider) connector(dexIssuer string) string {
	return strings.TrimLeft(fmt.Sprintf(`
connectors:
- type: saml
  id: saml
  name: SAML
  config:
    ssoURL: %s/sso
    caData: %s
    redirectURI: %s/callback
    entityIssuer: %s
    ssoIssuer: %s/metadata
    usernameAttr: urn:oid:0.9.2342.19200300.100.1.1
    emailAttr: urn:oid:0.9.2342.19200300.100.1.3
    groupsAttr: urn:oid:1.3.6.1.4.1.5923.1.1.1.1
    nameIDPolicyFormat: transient
`, s.url, s.ca, dexIssuer, dexIssuer, s.url), "\n")
}
