package gateway

import (
	"bytes"
	"net/http"
	"testing"
)

// TestRefusalReachesABusyClient: a client that is still sending its body when it
// is refused gets the refusal, though its connection ends with it.
func TestRefusalReachesABusyClient(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Caps.MaxBody = 1 << 20 })
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	body := bytes.Repeat([]byte("x"), 8<<20)
	for i := range 20 {
		req, err := http.NewRequest(http.MethodPost, "http://"+r.addr+"/v1/chat/completions", bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+acmeKey)
		resp, err := client.Do(req)
		if err != nil {
			t.Fatalf("request %d lost its refusal: %v", i, err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusRequestEntityTooLarge {
			t.Fatalf("request %d: %s", i, resp.Status)
		}
	}
}
