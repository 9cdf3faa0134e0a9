package daemon

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"

	"github.com/bulkhead-ai/bulkhead/configs"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/edge"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/gateway"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/routes"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/sso"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
)

// keys is gateway.Keys over the look-up table.
type keys struct {
	table *routes.Table
	ready func() bool
}

func (k *keys) Lookup(hash *[32]byte) (gateway.Grant, bool) {
	e := k.table.Lookup(hash)
	if e == nil {
		return gateway.Grant{}, false
	}
	return gateway.Grant{
		Tenant: e.Tenant, Key: e.KeyID, Rev: e.Rev(), ExpiresAt: e.ExpiresAt,
		Revoked: e.Revoked, Suspended: e.Suspended(), Sources: e.Sources,
	}, true
}

func (k *keys) Ready() bool { return k.ready() }

// tokens is gateway.Tokens over the identity providers and the look-up table.
type tokens struct {
	people *sso.People
	table  *routes.Table
}

// newTokens answers nil, for nobody, when there is no identity provider.
func newTokens(people *sso.People, table *routes.Table) gateway.Tokens {
	if people == nil {
		return nil
	}
	return &tokens{people, table}
}

func (t *tokens) Person(ctx context.Context, token string) (gateway.Grant, error) {
	m, err := t.people.Person(ctx, token)
	if err != nil {
		return gateway.Grant{}, err
	}
	g := gateway.Grant{Tenant: m.Tenant, Key: m.ID, ExpiresAt: m.ExpiresAt, Member: &m.Member, Suspended: true}
	if route := t.table.Tenant(m.Tenant); route != nil {
		g.Rev, g.Suspended = route.Rev(), route.Suspended()
	}
	return g, nil
}

// newGateway opens the data port. people and refused may be nil.
func newGateway(cfg *configs.Server, k *keys, people gateway.Tokens, refused func(netip.Addr), r *edge.Router,
	reg prometheus.Registerer, log *zap.Logger) (*gateway.Gateway, error) {
	l, err := net.Listen("tcp", cfg.Listen)
	if err != nil {
		return nil, fmt.Errorf("open the data port: %w", err)
	}
	conf, err := tlsConfig(cfg)
	if err != nil {
		l.Close()
		return nil, err
	}
	g := cfg.Gateway
	gw, err := gateway.New(gateway.Config{
		Listener: l, TLS: conf, AllowPlain: cfg.AllowPlain, Keys: k, Tokens: people, Refused: refused, Workers: r,
		Metrics: reg, Log: log.Named("gateway"),
		Caps: gateway.Caps{
			Connections: g.Connections, InFlight: g.InFlight, BufferedBytes: int64(g.BufferedBytes), MaxBody: int64(g.MaxBody),
			MinBodyRate: int64(g.MinBodyRate), WriteTimeout: g.WriteTimeout, AnswerTimeout: g.AnswerTimeout,
			Park: g.Park, ParkingLot: g.Parked,
		},
		Door: gateway.Door{HeaderTimeout: g.HeaderTimeout},
	})
	if err != nil {
		l.Close()
		return nil, fmt.Errorf("set up the data port: %w", err)
	}
	return gw, nil
}

// tlsConfig loads the certificate, nil when none is configured.
func tlsConfig(cfg *configs.Server) (*tls.Config, error) {
	if !cfg.TLS.Enabled() {
		return nil, nil
	}
	cert, err := tls.LoadX509KeyPair(cfg.TLS.CertFile, cfg.TLS.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("load the certificate: %w", err)
	}
	return &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}, nil
}
