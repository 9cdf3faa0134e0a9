package gateway

import (
	"context"
	"net/netip"

	"go.uber.org/zap"

	"github.com/bulkhead-ai/bulkhead"
)

// authenticate finds the tenant by the credential alone. Whatever is wrong with a
// key, the work and the answer are the same.
func (x *exchange) authenticate() *bulkhead.Error {
	cred, ok, err := findCredential(x.r.Header)
	if err != nil {
		return err
	}
	if ok && x.g.cfg.Tokens != nil && isToken(cred) {
		return x.authenticateToken(cred)
	}
	sum, ok := hashKey(cred, ok)
	ready := x.g.cfg.Keys.Ready()
	grant, found := x.g.cfg.Keys.Lookup(&sum)
	if !ready && ok && (!found || grant.Suspended && !grant.Revoked) {
		return errCluster // another node may know better
	}
	if !ok || !found || grant.Revoked || x.expired(&grant) || grant.Tenant == "" {
		return x.refused(errKey)
	}
	return x.enter(&grant)
}

// authenticateToken is authenticate for a person.
func (x *exchange) authenticateToken(token string) *bulkhead.Error {
	ready := x.g.cfg.Keys.Ready()
	grant, err := x.person(x.r.Context(), token)
	if err != nil {
		if err.Kind == bulkhead.Unauthenticated {
			return x.refused(err)
		}
		if err.Kind == bulkhead.PermissionDenied {
			x.g.cfg.Refused(x.peer.addr)
		}
		return err
	}
	switch {
	case !ready && grant.Suspended:
		return errCluster // another node may know better
	case x.expired(&grant) || grant.Tenant == "" || grant.Member == nil:
		return x.refused(errToken)
	}
	return x.enter(&grant)
}

// person asks Tokens and sorts its errors. Trouble with finding out who somebody
// is must never look like a wrong token.
func (x *exchange) person(ctx context.Context, token string) (Grant, *bulkhead.Error) {
	grant, err := x.g.cfg.Tokens.Person(ctx, token)
	if err == nil {
		return grant, nil
	}
	e := bulkhead.AsError(err)
	if e.Kind != bulkhead.Unauthenticated && e.Kind != bulkhead.PermissionDenied && e.Kind != bulkhead.Unavailable {
		e = errIdentity.With(err)
	}
	if e.Kind == bulkhead.Unavailable {
		x.g.cfg.Log.Warn("identity provider", zap.String("request", string(x.id)), zap.Error(err))
	}
	return Grant{}, e
}

func (x *exchange) expired(g *Grant) bool {
	return g.ExpiresAt != 0 && x.started.UnixMilli() >= g.ExpiresAt
}

// refused counts a wrong credential against its address.
func (x *exchange) refused(err *bulkhead.Error) *bulkhead.Error {
	x.g.cfg.Refused(x.peer.addr)
	if x.peer.failed() {
		x.g.metrics.authLimited.Inc()
		return errAuthRate
	}
	return err
}

// enter takes over a valid grant and checks what it says of the circumstances.
func (x *exchange) enter(g *Grant) *bulkhead.Error {
	x.grant = *g
	x.tenant = x.g.tenantOf(g.Tenant)
	if g.Suspended {
		return errSuspended
	}
	if len(g.Sources) > 0 && !from(g.Sources, x.peer.addr) {
		x.g.cfg.Refused(x.peer.addr)
		return errSource
	}
	return nil
}

// from reports whether an address is in one of the ranges. It is the address of
// the connection: what a header says of another one, anybody can write.
func from(sources []netip.Prefix, addr netip.Addr) bool {
	for _, s := range sources {
		if s.Contains(addr) {
			return true
		}
	}
	return false
}
