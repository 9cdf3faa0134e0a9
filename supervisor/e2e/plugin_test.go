package e2e_test

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestPluginAnswersTheSame: an adapter as a process of its own gives the same
// answers as linked in, shows itself in ps, is one per tenant, has none of the
// tenant's data and no secret, and dies with its worker.
func TestPluginAnswersTheSame(t *testing.T) {
	t.Parallel()
	n, up := startDev(t), startUpstream(t)
	n.more = []string{"UPSTREAM_KEY=sk-plugin-must-not-see"}
	n.must("", "plugin", "add", "openai", program("bulkhead-provider-openai"))
	k := n.tenant("bank", "{}", up)
	n.provider("bank", "plugged", up, ", plugin: true, credential: {env: UPSTREAM_KEY}")
	strip := func(a answer) string { return strings.ReplaceAll(a.body, a.id(), "ID") }
	for _, more := range []string{`"stream":false`, `"stream":true`, `"stream":true,"stream_options":{"include_usage":true}`, `"tools":[{"x":1.50}]`} {
		linked, plugged := n.chat(200, k.Key, chat("[[up in=7]]", more)), n.chat(200, k.Key, chatTo("plugged", "[[up in=7]]", more))
		if strip(linked) != strip(plugged) {
			t.Errorf("%s: linked in\n%s\nas a plugin\n%s", more, linked, plugged)
		}
		calls := up.record()
		if a, b := calls[len(calls)-2], calls[len(calls)-1]; string(a.body) != string(b.body) || b.header.Get("Authorization") != "Bearer sk-plugin-must-not-see" {
			t.Errorf("%s: upstream received\n%s\nand\n%s %v", more, a.body, b.body, b.header)
		}
	}
	if a, b := n.chat(502, k.Key, chat("[[up status=500]]")), n.chat(502, k.Key, chatTo("plugged", "[[up status=500]]")); strip(a) != strip(b) {
		t.Errorf("errors: %s and %s", a, b)
	}
	pid := n.one("bulkhead-provider-openai tenant=bank")
	environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	check(t, err)
	if strings.Contains(string(environ), "sk-plugin-must-not-see") || strings.Contains(string(environ), "BULKHEAD_TOKEN") {
		t.Errorf("the plugin's environment: %q", environ)
	}

	other := n.tenant("other", "{}", nil)
	n.provider("other", "plugged", up, ", plugin: true")
	n.chat(200, other.Key, chatTo("plugged", "x"))
	n.one("bulkhead-provider-openai tenant=other")

	killProcess(t, n.one("bulkhead-worker tenant=bank"))
	eventually(t, "the plugin has died with its worker", func() error {
		if exists(fmt.Sprintf("/proc/%d", pid)) {
			return fmt.Errorf("process %d: %s", pid, cmdline(pid))
		}
		return nil
	})
	n.chat(200, k.Key, chatTo("plugged", "again"))
}

// TestSwappedPlugin (V41): a binary that is not the one that was registered does
// not run, whatever its name; the tenant's other providers go on.
func TestSwappedPlugin(t *testing.T) {
	t.Parallel()
	n, up := startDev(t), startUpstream(t)
	binary := program("bulkhead-provider-openai")
	n.must("", "plugin", "add", "openai", binary)
	content, err := os.ReadFile(binary)
	check(t, err)
	sum := sha256.Sum256(content)
	stored := filepath.Join(n.data(), "plugins", hex.EncodeToString(sum[:]))
	if out := n.must("", "plugin", "list", "-o", "json"); !strings.Contains(out, hex.EncodeToString(sum[:])) {
		t.Errorf("plugin list: %s", out)
	}
	k := n.tenant("bank", "{}", up)
	n.provider("bank", "plugged", up, ", plugin: true")

	marker := filepath.Join(n.dir, "ran")
	check(t, os.Remove(stored))
	check(t, os.WriteFile(stored, []byte("#!/bin/sh\ntouch "+marker+"\n"), 0o700))
	a := n.chat(502, k.Key, chatTo("plugged", "x"))
	if strings.Contains(a.body, n.dir) || exists(marker) || len(up.record()) != 0 {
		t.Errorf("a swapped plugin ran, or the answer tells too much: %s", a)
	}
	n.chat(200, k.Key, chat("x"))

	check(t, os.Remove(stored))
	check(t, os.Symlink(program("bulkhead-provider-echo"), stored))
	n.chat(502, k.Key, chatTo("plugged", "x"))
	if r := n.run("", "plugin", "remove", "openai"); r.code != 1 {
		t.Errorf("a plugin in use was removed: %+v", r)
	}
}

// TestPluginCrashLoop: a plugin that dies on every start fails its own provider
// and is not started without end; other providers and tenants do not notice.
func TestPluginCrashLoop(t *testing.T) {
	t.Parallel()
	n, up := startDev(t), startUpstream(t)
	n.must("", "plugin", "add", "broken", program("rig")) // it prints its usage and exits
	k := n.tenant("bank", "{}", up)
	n.apply(`kind: Provider
metadata: {name: broken, tenant: bank}
spec: {adapter: broken, base_url: "%s/v1", allow_private: true}
---
kind: Route
metadata: {name: broken, tenant: bank}
spec: {targets: [{provider: broken, model: m}]}
`, up.url)
	s := n.stream(k.Key, chat("[[up gate=slow]]", `"stream":true`))
	s.next()
	worker := n.one("bulkhead-worker tenant=bank")
	for range 20 {
		if a := n.post(k.Key, "chat/completions", chatTo("broken", "x")); a.status != 502 && a.status != 503 {
			t.Fatalf("got %s", a)
		}
		n.chat(200, k.Key, chat("x"))
		n.chat(200, n.env["GLOBEX_PROD_KEY"], echo("x"))
	}
	if now := n.one("bulkhead-worker tenant=bank"); now != worker {
		t.Errorf("the worker is process %d, was %d", now, worker)
	}
	up.gate("slow").release()
	s.whole()
	if r := n.booked("bank", 41); r.Served != 21 || r.Failed != 20 {
		t.Errorf("booked %+v", r)
	}
}
