package sso

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/configs"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/access"
	"github.com/bulkhead-ai/bulkhead/worker/control"
)

// maxToken bounds the bytes of a token.
const maxToken = 8 << 10

// The errors a caller of Identify and Person gets. They are values that nobody
// changes: every wrong token gets the same bytes.
var (
	errToken = bulkhead.E(bulkhead.Unauthenticated, "invalid_token", "The token is not valid.")

	errNoPlace = bulkhead.E(bulkhead.PermissionDenied, "member_not_allowed", "The holder of this token may not send requests.")

	errUnavailable = &bulkhead.Error{Kind: bulkhead.Unavailable, Code: "identity_provider_unavailable", RetryAfter: 5 * time.Second,
		Message: "The identity provider is not available at the moment."}
)

// Config of People.
type Config struct {
	Issuers []configs.Issuer             // as validated and completed by configs; at least one
	Exists  func(bulkhead.TenantID) bool // whether there is such a tenant now; called concurrently, must not block
	Metrics prometheus.Registerer        // nil = none
	Log     *zap.Logger                  // nil = none; never sees a token

	transport http.RoundTripper // tests; nil = the network
}

// People identifies people by their tokens. It is safe for concurrent use.
type People struct {
	cfg     Config
	issuers map[string]*issuer // by iss
	cache   *cache
}

// Member is a person on the data plane.
type Member struct {
	ID     bulkhead.KeyID // control.PersonID: the same person's for ever
	Tenant bulkhead.TenantID
	control.Member
}

// New reads the issuers' root certificates. It asks nobody anything yet.
func New(cfg Config) (*People, error) {
	if len(cfg.Issuers) == 0 || cfg.Exists == nil {
		return nil, errors.New("sso: issuers and tenants are required")
	}
	if cfg.Log == nil {
		cfg.Log = zap.NewNop()
	}
	p := &People{cfg: cfg, issuers: map[string]*issuer{}, cache: newCache(maxCached)}
	for _, c := range cfg.Issuers {
		i, err := newIssuer(c, cfg.transport, cfg.Log)
		if err != nil {
			return nil, fmt.Errorf("identity provider %s: %w", c.Issuer, err)
		}
		p.issuers[c.Issuer] = i
		if err := i.export(cfg.Metrics); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// Run keeps the issuers' keys fresh until ctx is done. Without it tokens work as
// well, but a withdrawn key is not noticed.
func (p *People) Run(ctx context.Context) {
	var wg sync.WaitGroup
	for _, i := range p.issuers {
		wg.Go(func() { i.keepFresh(ctx) })
	}
	wg.Wait()
}

// Identify answers who asks the admin API, perhaps without any role. Its error is
// a *bulkhead.Error of kind Unauthenticated or Unavailable.
func (p *People) Identify(ctx context.Context, token string) (access.Principal, error) {
	v, err := p.verified(ctx, token, func(i *issuer) []string { return i.conf.Audiences.Admin })
	if err != nil {
		return access.Principal{}, err
	}
	return p.principal(v), nil
}

// Person answers who asks the data plane, and where the requests are booked. Its
// error is a *bulkhead.Error of kind Unauthenticated, Unavailable or, for a known
// person without a place, PermissionDenied.
func (p *People) Person(ctx context.Context, token string) (Member, error) {
	v, err := p.verified(ctx, token, func(i *issuer) []string { return i.conf.Audiences.Data })
	if err != nil {
		return Member{}, err
	}
	rule, tenant := p.place(v)
	if rule == nil {
		return Member{}, errNoPlace
	}
	return Member{ID: v.person, Tenant: tenant, Member: control.Member{
		Project: rule.Project, Env: rule.Env, Account: rule.ServiceAccount, Owner: v.owner, ExpiresAt: v.expires.UnixMilli(),
	}}, nil
}

// verified checks a token for the surface whose audiences are asked for.
func (p *People) verified(ctx context.Context, token string, audiences func(*issuer) []string) (*identity, error) {
	if len(token) > maxToken {
		return nil, errToken
	}
	sum := sha256.Sum256([]byte(token))
	now := time.Now()
	v := p.cache.get(sum, now)
	if v == nil {
		var err error
		if v, err = p.check(ctx, token, now); err != nil {
			return nil, err
		}
		p.cache.put(sum, v, now)
	}
	if !overlap(v.audience, audiences(v.issuer)) {
		return nil, errToken
	}
	return v, nil
}

// check is verified for a token that was not seen before. What can be refused by
// what the token says itself is refused first, and asks nobody.
func (p *People) check(ctx context.Context, token string, now time.Time) (*identity, error) {
	head, claims, err := parse(token)
	if err != nil {
		return nil, errToken.With(err)
	}
	i := p.issuers[claims.issuer]
	if i == nil {
		return nil, errToken.With(errors.New("no such issuer"))
	}
	if err := i.plausible(head, claims, now); err != nil {
		return nil, errToken.With(err)
	}
	generation, err := i.verify(ctx, token, head)
	if err != nil {
		return nil, err
	}
	return i.identity(claims, generation), nil
}

// overlap reports whether two lists have a member in common.
func overlap(a, b []string) bool {
	return slices.ContainsFunc(a, func(s string) bool { return slices.Contains(b, s) })
}
