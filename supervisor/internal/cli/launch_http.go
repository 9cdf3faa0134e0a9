package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/bulkhead-ai/bulkhead"
)

// dataPlane sends the launch check's requests.
type dataPlane struct {
	url  string
	http *http.Client
}

// dataPlane takes the address with or without /v1.
func (a *app) dataPlane(addr string) (*dataPlane, error) {
	if addr == "" {
		return nil, usagef("doctor --launch: no address of the data plane: set BULKHEAD_URL or give --url")
	}
	if !strings.Contains(addr, "://") {
		addr = "http://" + addr
	}
	u, err := url.Parse(addr)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.User != nil || u.RawQuery != "" {
		return nil, usagef("--url %q: want http://HOST:PORT or https://HOST:PORT", addr)
	}
	transport := &http.Transport{DisableKeepAlives: true, TLSHandshakeTimeout: 5 * time.Second, ResponseHeaderTimeout: 2 * time.Minute}
	if a.caFile != "" {
		if transport.TLSClientConfig, err = trust(a.caFile); err != nil {
			return nil, err
		}
	}
	path := strings.TrimSuffix(strings.TrimRight(u.Path, "/"), "/v1")
	return &dataPlane{
		url: u.Scheme + "://" + u.Host + path,
		// A redirect would carry the key to an address that nobody named.
		http: &http.Client{Transport: transport, Timeout: 3 * time.Minute, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
	}, nil
}

// reply is what a client sees of its request.
type reply struct {
	status  int
	request bulkhead.RequestID
	cost    string
	code    string
	message string
	param   string
}

// String is the reply for people.
func (r reply) String() string {
	s := fmt.Sprintf("%d", r.status)
	if r.code != "" {
		s += " " + r.code
	}
	if r.message != "" {
		s += " (" + r.message + ")"
	}
	return printable(s)
}

// ask sends a chat completion of a few tokens. Errors never hold the key.
func (d *dataPlane) ask(ctx context.Context, key, model string, tagged bool) (reply, error) {
	body, err := json.Marshal(map[string]any{
		"model": model, "max_tokens": 8,
		"messages": []map[string]string{{"role": "user", "content": "launch check: answer ok"}},
	})
	if err != nil {
		return reply{}, fmt.Errorf("encode request: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, d.url+"/v1/chat/completions", bytes.NewReader(body))
	if err != nil {
		return reply{}, fmt.Errorf("send a request to %s: %w", d.url, err)
	}
	req.Header.Set("Authorization", "Bearer "+key)
	req.Header.Set("Content-Type", "application/json")
	if tagged {
		req.Header.Set("X-Bulkhead-Feature", launchName)
		req.Header.Set("X-Bulkhead-User", launchName)
	}
	resp, err := d.http.Do(req)
	if err != nil {
		return reply{}, fmt.Errorf("send a request to %s: %w", d.url, err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxProblem))
	if err != nil {
		return reply{}, fmt.Errorf("read the answer of %s: %w", d.url, err)
	}
	return replyOf(resp, raw), nil
}

func replyOf(resp *http.Response, raw []byte) reply {
	r := reply{status: resp.StatusCode, request: bulkhead.RequestID(resp.Header.Get("X-Request-Id")), cost: resp.Header.Get("X-Bulkhead-Cost")}
	var refusal struct {
		Error struct {
			Code    string `json:"code"`
			Message string `json:"message"`
			Param   string `json:"param"`
		} `json:"error"`
	}
	if resp.StatusCode != http.StatusOK && json.Unmarshal(raw, &refusal) == nil {
		r.code, r.message, r.param = refusal.Error.Code, refusal.Error.Message, refusal.Error.Param
	}
	return r
}
