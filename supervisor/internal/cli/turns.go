package cli

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// probeTimeout bounds the question whether a node is ready. A node that is
// frozen or cut off accepts connections and says nothing; without the question
// each would cost a whole answer's patience.
const probeTimeout = 2 * time.Second

// do sends the call and decodes the answer into out.
//
// Addresses are tried in turn, those that say they are ready before the others.
// The next one is asked when nothing answers, when the node cannot serve now
// (503), and when it is not known whether a write was made: every address gets
// the same Idempotency-Key, so that it is made once. After an unknown outcome all
// are asked a second time.
func (c *client) do(ctx context.Context, r call, out any) error {
	var body []byte
	if r.body != nil {
		var err error
		if body, err = json.Marshal(r.body); err != nil {
			return fmt.Errorf("encode request: %w", err)
		}
	}
	op := strings.ToLower(rand.Text())
	var failures []error
	for range 2 {
		failures = nil
		unknown := false
		for addr := range c.inTurn(ctx) {
			err := c.ask(ctx, addr, op, r, body, out)
			if err == nil {
				return nil
			}
			if ctx.Err() != nil {
				return fmt.Errorf("ask %s: %w", addr, ctx.Err())
			}
			var t *turnError
			if !errors.As(err, &t) {
				return err
			}
			unknown = unknown || t.unknown
			failures = append(failures, t.err)
		}
		if !unknown || r.method == http.MethodGet {
			break
		}
	}
	return joinLines(failures)
}

// inTurn yields the addresses, those that are not ready at the end.
func (c *client) inTurn(ctx context.Context) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		if len(c.addrs) == 1 {
			yield(c.addrs[0])
			return
		}
		var later []string
		for _, addr := range c.addrs {
			if !c.ready(ctx, addr) {
				later = append(later, addr)
			} else if !yield(addr) {
				return
			}
		}
		for _, addr := range later {
			if !yield(addr) {
				return
			}
		}
	}
}

// ready asks a node whether it can serve; the token is not shown.
func (c *client) ready(ctx context.Context, addr string) bool {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, addr+"/readyz", nil)
	if err != nil {
		return false
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return false
	}
	resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// turnError is a failure after which another address may do better.
type turnError struct {
	err     error
	unknown bool // the write may have been made
}

func (e *turnError) Error() string { return e.err.Error() }
func (e *turnError) Unwrap() error { return e.err }

// ask sends the call to one address.
func (c *client) ask(ctx context.Context, addr, op string, r call, body []byte, out any) error {
	resp, err := c.send(ctx, addr, op, r, body)
	if err != nil {
		var request *url.Error
		if !errors.As(err, &request) {
			return err // of this machine: a file that cannot be read
		}
		var dial *net.OpError
		sent := !errors.As(err, &dial) || dial.Op != "dial"
		if sent && r.once {
			return unreachable(addr, err)
		}
		return &turnError{unreachable(addr, err), sent}
	}
	err = c.take(resp, addr, r, out)
	var p *problemError
	if !errors.As(err, &p) || p.foreign && p.Status != http.StatusServiceUnavailable {
		return err
	}
	switch {
	case p.Status == http.StatusServiceUnavailable:
		return &turnError{err, false}
	case p.Status == http.StatusGatewayTimeout && !r.once:
		return &turnError{err, true}
	}
	return err
}
