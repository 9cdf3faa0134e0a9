package e2e_test

import (
	"bufio"
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/bulkhead-ai/bulkhead/supervisor/e2e/idptest"
)

// person is somebody with a command line of their own: no node's token, but a
// folder for what signing in leaves.
type person struct {
	n     *node
	email string
	home  string
}

func (n *node) person(email string) *person {
	n.t.Helper()
	home, err := os.MkdirTemp(n.dir, "home-")
	check(n.t, err)
	return &person{n, email, home}
}

func (p *person) command(args ...string) *exec.Cmd {
	cmd := exec.Command(program("bulkhead"), args...)
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "BULKHEAD_") && !strings.HasPrefix(e, "XDG_") && !strings.HasPrefix(e, "HOME=") {
			cmd.Env = append(cmd.Env, e)
		}
	}
	cmd.Env = append(cmd.Env, "HOME="+p.home, "BULKHEAD_ADDR="+p.n.env["BULKHEAD_ADDR"])
	return cmd
}

// run runs a command as the person.
func (p *person) run(args ...string) ran {
	p.n.t.Helper()
	cmd := p.command(args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	cmd.Run()
	return ran{out.String(), errs.String(), cmd.ProcessState.ExitCode()}
}

func (p *person) must(args ...string) string {
	p.n.t.Helper()
	r := p.run(args...)
	if r.code != 0 {
		p.n.t.Fatalf("%s: bulkhead %s: exit %d\n%s%s", p.email, strings.Join(args, " "), r.code, r.out, r.err)
	}
	return r.out
}

// refused runs what must fail and answers what was said.
func (p *person) refused(want string, args ...string) {
	p.n.t.Helper()
	r := p.run(args...)
	if r.code != 1 || !strings.Contains(r.err, want) || r.out != "" {
		p.n.t.Errorf("%s: bulkhead %s: exit %d, want 1 and %q\n%s%s", p.email, strings.Join(args, " "), r.code, want, r.out, r.err)
	}
}

var (
	addressLine = regexp.MustCompile(`http://\S+`)
	codeLine    = regexp.MustCompile(`enter the code (\S+)`)
)

// signIn signs in: the browser is told the address that the command line prints.
func (p *person) signIn(more ...string) {
	t := p.n.t
	t.Helper()
	cmd := p.command(append([]string{"login", "--no-browser"}, more...)...)
	errs, err := cmd.StderrPipe()
	check(t, err)
	check(t, cmd.Start())
	var said strings.Builder
	seen := make(chan string, 1)
	lines := bufio.NewScanner(errs)
	for lines.Scan() {
		fmt.Fprintln(&said, lines.Text())
		address := addressLine.FindString(lines.Text())
		if address == "" {
			continue
		}
		code := ""
		if m := codeLine.FindStringSubmatch(lines.Text()); m != nil {
			code = m[1]
		}
		go func() {
			page, err := idptest.Browser(address, p.email, code)
			seen <- fmt.Sprint(page, err)
			if err != nil {
				cmd.Process.Kill()
			}
		}()
		break
	}
	hang := time.AfterFunc(hanging, func() { cmd.Process.Kill() })
	defer hang.Stop()
	rest, _ := io.ReadAll(errs)
	if err := cmd.Wait(); err != nil {
		t.Fatalf("login of %s: %v\n%s%s\nin the browser: %s", p.email, err, said.String(), rest, <-seen)
	}
}

// bearer is the credential that signing in left.
func (p *person) bearer() string {
	p.n.t.Helper()
	raw, err := os.ReadFile(filepath.Join(p.home, ".config", "bulkhead", "session.json"))
	check(p.n.t, err)
	return decode[struct{ Token struct{ Bearer string } }](p.n.t, string(raw)).Token.Bearer
}

// forge takes a real token apart and puts it together as an attacker would.
type forge struct {
	t       testing.TB
	head    map[string]any
	claims  map[string]any
	encoded [3]string
}

func take(t testing.TB, token string) *forge {
	t.Helper()
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		t.Fatalf("a token of %d parts", len(parts))
	}
	f := &forge{t: t, encoded: [3]string(parts)}
	for i, into := range []*map[string]any{&f.head, &f.claims} {
		raw, err := base64.RawURLEncoding.DecodeString(parts[i])
		check(t, err)
		check(t, json.Unmarshal(raw, into))
	}
	return f
}

func (f *forge) part(m map[string]any) string {
	raw, err := json.Marshal(m)
	check(f.t, err)
	return base64.RawURLEncoding.EncodeToString(raw)
}

// with changes claims and keeps the signature.
func (f *forge) with(claims map[string]any) string {
	all := map[string]any{}
	for k, v := range f.claims {
		all[k] = v
	}
	for k, v := range claims {
		all[k] = v
	}
	return f.encoded[0] + "." + f.part(all) + "." + f.encoded[2]
}

// unsigned says alg: none.
func (f *forge) unsigned() string {
	return f.part(map[string]any{"alg": "none", "typ": "JWT"}) + "." + f.encoded[1] + "."
}

// hmac signs with a secret that everybody knows: the public key.
func (f *forge) hmac(secret []byte, claims string) string {
	text := f.part(map[string]any{"alg": "HS256", "typ": "JWT", "kid": f.head["kid"]}) + "." + claims
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(text))
	return text + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}
