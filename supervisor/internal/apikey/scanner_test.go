package apikey

import (
	"crypto/rand"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
)

// scanners are the expressions of the rule files, by scanner and the keyword that
// comes first.
func scanners(t *testing.T) map[string]map[string]*regexp.Regexp {
	t.Helper()
	const folder = "../../../configs/secret-scanning/"
	toml, err := os.ReadFile(folder + "gitleaks.toml")
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]map[string]*regexp.Regexp{"gitleaks": {}, "trufflehog": {}}
	rule := regexp.MustCompile(`(?s)\[\[rules\]\].*?regex = '''([^']+)'''.*?keywords = \["([^"]+)"\]`)
	for _, m := range rule.FindAllStringSubmatch(string(toml), -1) {
		out["gitleaks"][m[2]] = regexp.MustCompile(m[1])
	}
	raw, err := os.ReadFile(folder + "trufflehog.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Detectors []struct {
			Keywords []string
			Regex    map[string]string
		}
	}
	if err := yaml.Unmarshal(raw, &doc); err != nil {
		t.Fatal(err)
	}
	for _, d := range doc.Detectors {
		for _, expr := range d.Regex {
			out["trufflehog"][d.Keywords[0]] = regexp.MustCompile(expr)
		}
	}
	return out
}

// TestSecretScanners holds the rule files against what the gateway hands out, in
// surroundings in which secrets leak.
func TestSecretScanners(t *testing.T) {
	around := []string{"%s", "export KEY=%s\n", `{"key":"%s"}`, "Authorization: Bearer %s\r\n", "https://h/admin/v1/unwrap#%s", "key: '%s' # prod", "x(%s)"}
	for name, rules := range scanners(t) {
		if len(rules) != 3 {
			t.Fatalf("%s: rules %v", name, rules)
		}
		for range 100 {
			key, _ := NewKey()
			for keyword, secret := range map[string]string{"bh_": key, "bhl_": newLink(t).Token(), "bha_": "bha_" + strings.ToLower(rand.Text()+rand.Text())} {
				for _, text := range around {
					m := rules[keyword].FindStringSubmatch(strings.Replace(text, "%s", secret, 1))
					if len(m) != 2 || m[1] != secret {
						t.Fatalf("%s: %s in %q found as %q", name, keyword, text, m)
					}
				}
			}
		}
	}
}

// TestLookAlikes shows what the checksum is for: the expressions take them, the
// gateway's own check does not.
func TestLookAlikes(t *testing.T) {
	find := scanners(t)["gitleaks"]
	text := func(n int) string {
		b := make([]byte, n)
		rand.Read(b)
		for i := range b {
			b[i] = alphabet[int(b[i])%len(alphabet)]
		}
		return string(b)
	}
	for range 500 {
		key, link := Prefix+text(bodyLen+sumLen), LinkPrefix+strings.Repeat("0a", linkIDLen/2)+text(bodyLen+sumLen)
		if !find["bh_"].MatchString(key) || !find["bhl_"].MatchString(link) {
			t.Fatalf("no look-alikes: %s %s", key, link)
		}
		if ParseKey([]byte(key)) == nil {
			t.Errorf("look-alike %s passes for a key", key)
		}
		if _, err := ParseLink(link); err == nil {
			t.Errorf("look-alike %s passes for a link", link)
		}
	}
	for _, hash := range []string{strings.Repeat("0123456789abcdef", 4), "key_0123456789abcdef0123", "req_" + strings.Repeat("a", 32), "bh_...1NET"} {
		for keyword, rule := range find {
			if rule.MatchString(hash) {
				t.Errorf("%s finds %s", keyword, hash)
			}
		}
	}
}
