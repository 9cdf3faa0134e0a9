package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
)

// The processes of a tenant, as they show themselves.
const (
	workerTitle = "bulkhead-worker\x00tenant="
	pluginTitle = "bulkhead-provider-"
)

// document is a tenant with one account, whose one model is the mock.
func document(name, mock, limits, idle string) string {
	return fmt.Sprintf(`kind: Tenant
metadata: {name: %[1]s}
spec:
  owner: owner@bank.example
  cost_center: CC-1
  idle_timeout: %[4]q
  limits: %[3]s
---
kind: Project
metadata: {name: p, tenant: %[1]s}
spec: {environments: {prod: {}}}
---
kind: ServiceAccount
metadata: {name: s, tenant: %[1]s, project: p}
spec: {owner: dev@bank.example}
---
kind: Provider
metadata: {name: mock, tenant: %[1]s}
spec: {adapter: openai, base_url: "%[2]s", allow_private: true}
---
kind: Route
metadata: {name: mock, tenant: %[1]s}
spec: {targets: [{provider: mock, model: mock}]}
`, name, mock, limits, idle)
}

// tenant makes a tenant that never hibernates, with one key, and returns the key.
func (n *node) tenant(name, mock, limits string) (key string, err error) {
	if _, err := n.cli(document(name, mock, limits, "0"), "apply", "-f", "-"); err != nil {
		return "", err
	}
	return n.key(name)
}

// tenants makes many tenants at once and returns their keys by name.
func (n *node) tenants(names []string, mock string) (map[string]string, error) {
	docs := make([]string, 0, len(names))
	for _, name := range names {
		docs = append(docs, document(name, mock, "{}", "0"))
	}
	if _, err := n.cli(strings.Join(docs, "---\n"), "apply", "-f", "-"); err != nil {
		return nil, err
	}
	keys := map[string]string{}
	for _, name := range names {
		key, err := n.key(name)
		if err != nil {
			return nil, err
		}
		keys[name] = key
	}
	return keys, nil
}

// wake starts a tenant's worker without using up any limit: only so many
// requests may wait for one to start.
func (n *node) wake(key string) error {
	req, err := http.NewRequest(http.MethodGet, n.env["BULKHEAD_URL"]+"/v1/models", nil)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+key)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("wake worker: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("wake worker: %s", resp.Status)
	}
	return nil
}

func (n *node) key(tenant string) (string, error) {
	out, err := n.cli("", "key", "create", "--tenant", tenant, "--project", "p", "--env", "prod", "--service-account", "s", "-o", "json")
	if err != nil {
		return "", err
	}
	var k struct{ ID, Key string }
	if err := json.Unmarshal(out, &k); err != nil {
		return "", fmt.Errorf("read created key: %w", err)
	}
	return k.Key, nil
}
