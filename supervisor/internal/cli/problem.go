package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"strings"
	"syscall"
)

// maxProblem bounds an error answer in bytes.
const maxProblem = 4 << 20

// problemError is an RFC 9457 answer of the API.
type problemError struct {
	Status int    `json:"status"`
	Title  string `json:"title"`
	Detail string `json:"detail"`
	Code   string `json:"code"`
	Errors []struct {
		Location string `json:"location"`
		Message  string `json:"message"`
	} `json:"errors"`
	addr    string
	foreign bool // no problem document: something else answers at the address
}

func problemOf(resp *http.Response, addr string) error {
	p := &problemError{addr: addr}
	raw, _ := io.ReadAll(io.LimitReader(resp.Body, maxProblem))
	if json.Unmarshal(raw, p) != nil || p.Detail == "" && len(p.Errors) == 0 {
		p.Title, p.foreign = "unexpected answer "+resp.Status+"; is this the admin port?", true
	}
	p.Status = resp.StatusCode
	return p
}

// Error prints the detail, and each single error on a line of its own.
func (p *problemError) Error() string {
	if p.Status == http.StatusUnauthorized && !p.foreign {
		return fmt.Sprintf("%s refused the admin token (see BULKHEAD_TOKEN and --token-file)", p.addr)
	}
	if p.Code == "reason_required" {
		return p.addr + ": say why with --reason TEXT; it is kept in the audit trail"
	}
	var b strings.Builder
	b.WriteString(p.addr + ": " + printable(firstOf(p.Detail, p.Title)))
	for _, e := range p.Errors {
		if e.Message != "" && !strings.Contains(p.Detail, e.Message) {
			b.WriteString("\n  " + printable(strings.TrimPrefix(e.Location+": "+e.Message, ": ")))
		}
	}
	return b.String()
}

// unreachable says which address did not answer, why, and how to name another.
func unreachable(addr string, err error) error {
	if errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("nothing answers at %s; is the node running? Set BULKHEAD_ADDR or --addr to its admin address", addr)
	}
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return err
	}
	return fmt.Errorf("ask %s: %w", addr, err)
}

// joinLines makes one error of several, a line each.
func joinLines(errs []error) error {
	if len(errs) == 1 {
		return errs[0]
	}
	return errors.Join(errs...)
}
