package egress

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"

	"github.com/bulkhead-ai/bulkhead/worker/control"
)

// dial connects to a target by name. The rules see each literal address after
// the name was resolved and before the connect, so a name that resolves to
// something else the second time gains nothing.
func (c *Config) dial(ctx context.Context, t Target) (*net.TCPConn, error) {
	r := rules{allowPrivate: t.AllowPrivate, operator: c.Allow, ownHost: c.DenyOwnHost && !t.AllowPrivate}
	d := net.Dialer{
		Timeout:  c.DialTimeout,
		Resolver: c.Resolver,
		ControlContext: func(_ context.Context, network, address string, _ syscall.RawConn) error {
			return checkAttempt(r, network, address)
		},
	}
	d.SetMultipathTCP(false) // an MPTCP socket may open paths that nobody checked
	conn, err := d.DialContext(ctx, "tcp", t.address())
	if err != nil {
		return nil, err
	}
	return conn.(*net.TCPConn), nil
}

func checkAttempt(r rules, network, address string) error {
	if network != "tcp4" && network != "tcp6" {
		return fmt.Errorf("internal error: dial over %s", network)
	}
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("internal error: dial of %q: %w", address, err)
	}
	return r.check(ap.Addr())
}

// code turns a dial error into the word that the worker gets. The worker's
// tenant may see it, so it tells nothing of the network behind the name.
func code(err error) string {
	var (
		denied *DeniedError
		dns    *net.DNSError
		timed  interface{ Timeout() bool }
		broker *control.BrokerError
	)
	switch {
	case errors.As(err, &broker):
		return broker.Code
	case errors.As(err, &denied):
		return control.CodeDenied
	case errors.Is(err, syscall.ECONNREFUSED):
		return control.CodeRefused
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return control.CodeTimeout
	case errors.As(err, &dns):
		return control.CodeDNS
	case errors.As(err, &timed) && timed.Timeout():
		return control.CodeTimeout
	}
	return control.CodeFailed
}
