package e2e_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestSecretsStayWhereTheyBelong (V13, V14, V15): neither a client's key nor a
// provider's credential nor a prompt is in any log, error, metric, process
// environment, command line or plaintext on disk, whatever goes wrong.
func TestSecretsStayWhereTheyBelong(t *testing.T) {
	t.Parallel()
	const (
		credential = "sk-canary-provider-credential-71b3"
		prompt     = "canary prompt about project Halcyon 5d1e"
		reply      = "answer" // too common to look for; the upstream's words stand for it
	)
	n := startServer(t, "worker: {idle_timeout: 0s}") // it logs at debug level
	n.more = []string{"UPSTREAM_KEY=" + credential}
	up := startUpstream(t)
	k := n.tenant("bank", "{}", nil)
	n.must("", "plugin", "add", "openai", program("bulkhead-provider-openai"))
	n.provider("bank", "up", up, ", credential: {env: UPSTREAM_KEY}")
	n.provider("bank", "plugged", up, ", plugin: true, credential: {env: UPSTREAM_KEY}")
	n.provider("bank", "hurried", up, `, timeout: "100ms", credential: {env: UPSTREAM_KEY}`)
	n.provider("bank", "nowhere", &upstream{url: "https://127.0.0.1:1"}, `, credential: {env: UPSTREAM_KEY}`)
	revoked := n.key("bank", "prod")
	n.must("", "key", "revoke", revoked.ID)
	var answers strings.Builder
	ask := func(k, body string, header ...string) {
		a, err := n.try(context.Background(), k, "chat/completions", body, header...)
		fmt.Fprintln(&answers, a.status, a.header, a.body, err)
	}
	for _, model := range []string{"model", "plugged", "hurried", "nowhere", "unknown"} {
		for _, order := range []string{"", "[[up status=401]]", "[[up status=500]]", "[[up cut=1]]", "[[up status=429]]"} {
			if model == "hurried" {
				order = "[[up gate=never]]"
			}
			for _, stream := range []bool{false, true} {
				ask(k.Key, chatTo(model, prompt+order, streamed(stream)))
			}
		}
	}
	ask(revoked.Key, chat(prompt))
	ask(k.Key+"x", chat(prompt))
	ask(k.Key, chat(prompt)+"trailing")
	ask(k.Key, chat(prompt, `"max_tokens":"`+prompt+`"`))
	ask(k.Key, chatTo(strings.ReplaceAll(prompt, " ", "-"), prompt))
	ask(k.Key, chat(prompt), "X-Api-Key", revoked.Key)
	n.raw("POST /v1/chat/completions?key=" + k.Key + " HTTP/1.1\r\nHost: h\r\nX-A: b\nAuthorization: Bearer " + k.Key + "\r\n\r\n" + prompt)
	s := n.stream(k.Key, chat(prompt+"[[up gate=slow]]", `"stream":true`))
	s.next()
	killProcess(t, n.one("bulkhead-worker tenant=bank"))
	s.rest()
	n.chat(200, k.Key, chat(prompt))
	if len(up.record()) < 10 {
		t.Fatal("hardly anything reached the upstream: the story proves nothing")
	}

	places := map[string]func() []byte{
		"answers": func() []byte { return []byte(answers.String()) },
		"metrics": func() []byte {
			resp, err := http.Get(n.env["BULKHEAD_ADDR"] + "/metrics")
			check(t, err)
			defer resp.Body.Close()
			b, _ := io.ReadAll(resp.Body)
			return b
		},
		"command line": func() []byte {
			var b strings.Builder
			for _, args := range [][]string{{"logs", "--tenant", "bank", "-o", "json"}, {"key", "list", "-o", "json"}, {"get", "all", "-o", "yaml"}, {"get", "all", "-o", "json"}, {"usage", "export"}} {
				b.WriteString(n.must("", args...))
			}
			return []byte(b.String())
		},
		"log of the node": func() []byte { b, _ := os.ReadFile(n.logs()); return b },
	}
	for _, p := range descendants(n.cmd.Process.Pid) {
		for _, file := range []string{"environ", "cmdline"} {
			places[fmt.Sprintf("%s of %s", file, cmdline(p.pid))] = func() []byte { b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/%s", p.pid, file)); return b }
		}
	}
	secrets := map[string]string{"client key": k.Key, "revoked key": revoked.Key, "credential": credential, "prompt": prompt, "upstream's words": "upstream-secret-words"}
	for place, content := range places {
		canaries(t, place, content(), secrets)
	}
	n.stop() // so that everything is on disk
	secrets["admin token"] = n.env["BULKHEAD_TOKEN"]
	check(t, filepath.WalkDir(n.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || strings.HasPrefix(path, filepath.Join(n.data(), "plugins")) {
			return err
		}
		if d.Name() == "admin.token" {
			return nil // it is what this file is for
		}
		b, err := os.ReadFile(path)
		canaries(t, path, b, secrets)
		return err
	}))
}

// canaries fails when content holds a secret, plain or in a usual coding.
func canaries(t *testing.T, place string, content []byte, secrets map[string]string) {
	t.Helper()
	for name, secret := range secrets {
		for coding, text := range map[string]string{
			"plain": secret, "hex": hex.EncodeToString([]byte(secret)), "base64": base64.StdEncoding.EncodeToString([]byte(secret))[:len(secret)], "url": url.QueryEscape(secret),
		} {
			if bytes.Contains(content, []byte(text)) {
				at := bytes.Index(content, []byte(text))
				t.Errorf("%s is in %s (%s): ...%q...", name, place, coding, content[max(0, at-80):min(len(content), at+80)])
			}
		}
	}
}

// TestPermissions (V52): what is on disk is for its owner only: folders 0700,
// or passable for a tenant's own uid, and files 0600.
func TestPermissions(t *testing.T) {
	t.Parallel()
	n := startDev(t)
	n.chat(200, n.env["ACME_PROD_KEY"], echo("x"))
	st, err := os.Stat(n.data())
	check(t, err)
	if st.Mode().Perm() != 0o700 {
		t.Errorf("the data folder has mode %04o", st.Mode().Perm())
	}
	check(t, filepath.WalkDir(n.data(), func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if os.IsNotExist(err) {
			return nil // the node works on
		}
		check(t, err)
		if perm := info.Mode().Perm(); d.Type().IsRegular() && perm&0o077 != 0 || d.IsDir() && perm&0o022 != 0 {
			t.Errorf("%s has mode %04o", path, perm)
		}
		return nil
	}))
	worker := n.one("bulkhead-worker tenant=acme")
	limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", worker))
	if err != nil {
		t.Skipf("the worker's limits cannot be read here: %v", err) // undumpable, and not root
	}
	if !strings.Contains(string(limits), "Max core file size        0                    0") {
		t.Errorf("a worker may write a core file:\n%s", limits)
	}
}
