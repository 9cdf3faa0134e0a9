package admin

import (
	"context"
	"net/http"
	"net/netip"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/audit"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/access"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin/wire"
	"github.com/danielgtaylor/huma/v2"
	"go.uber.org/zap"
)

const (
	reasonHeader = wire.Reason
	tokenSubject = "token" // of whoever holds the token of the node
)

// People finds out who a bearer token belongs to. Methods may be called
// concurrently.
type People interface {
	// Identify answers somebody, or an error: *bulkhead.Error of kind
	// Unauthenticated when the token is nobody's, of kind Unavailable when it
	// cannot be known now.
	Identify(ctx context.Context, token string) (access.Principal, error)
}

// caller is who sent a request, and what every event says of it.
type caller struct {
	principal access.Principal
	address   netip.Addr
	request   bulkhead.RequestID
	reason    string
	// Only the request's goroutine uses these.
	after any    // see noteAfter
	drop  func() // see onDrop
}

type callerKey struct{}

func callerOf(ctx context.Context) *caller {
	c, ok := ctx.Value(callerKey{}).(*caller)
	if !ok {
		panic("internal error: a request without a caller")
	}
	return c
}

// principalOf is who sent the request. It is never the zero Principal.
func principalOf(ctx context.Context) access.Principal { return callerOf(ctx).principal }

// noteAfter sets what the outcome's event shows as after, where only the handler
// knows it. It is never a secret.
func noteAfter(ctx context.Context, after any) { callerOf(ctx).after = after }

// onDrop says how to release what an answer holds that streams later: it may be
// dropped, when nobody can record that it was given.
func onDrop(ctx context.Context, release func()) { callerOf(ctx).drop = release }

// identify answers who sent the request; it looks at nothing but the header. With
// ok false the request is answered already.
func (a *API) identify(w http.ResponseWriter, r *http.Request) (p access.Principal, ok bool) {
	secret, ok := bearer(r)
	switch {
	case !ok:
	case a.cfg.Token.is(secret):
		return access.Principal{
			Subject: tokenSubject, Method: access.ByToken,
			Platform: []access.Role{access.PlatformAdmin}, Content: a.cfg.TokenReadsContent,
		}, true
	case a.cfg.People != nil:
		p, err := a.cfg.People.Identify(r.Context(), secret)
		if err == nil && p.Known() {
			return p, true
		}
		if err == nil {
			a.cfg.Log.DPanic("internal error: an identified person is nobody")
			break
		}
		if e := bulkhead.AsError(err); e.Kind != bulkhead.Unauthenticated {
			a.cfg.Log.Warn("identify the caller", zap.Error(err))
			w.Header().Set("Retry-After", "5")
			writeProblem(w, http.StatusServiceUnavailable, "it cannot be found out now who you are; try again")
			return access.Principal{}, false
		}
	}
	if a.cfg.Refused != nil {
		a.cfg.Refused(addressOf(r))
	}
	w.Header().Set("WWW-Authenticate", `Bearer realm="bulkhead admin"`)
	writeProblem(w, http.StatusUnauthorized, "want a valid token as Authorization: Bearer TOKEN")
	return access.Principal{}, false
}

// bearer reads the credential. One Authorization header is allowed: proxies and
// servers disagree on which of two counts.
func bearer(r *http.Request) (secret string, ok bool) {
	values := r.Header.Values("Authorization")
	if len(values) != 1 {
		return "", false
	}
	scheme, secret, _ := strings.Cut(values[0], " ")
	return secret, strings.EqualFold(scheme, "Bearer") && secret != ""
}

// addressOf is the peer of the connection; no header is believed.
func addressOf(r *http.Request) netip.Addr {
	ap, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr().Unmap()
}

// enter makes the request's caller, with the reason that was given.
func (a *API) enter(w http.ResponseWriter, r *http.Request, p access.Principal) (*http.Request, bool) {
	reason := strings.TrimSpace(strings.Join(r.Header.Values(wire.Reason), "; "))
	if len(reason) > audit.MaxText || !utf8.ValidString(reason) || strings.ContainsFunc(reason, unicode.IsControl) {
		writeProblem(w, http.StatusUnprocessableEntity, "the reason is not a line of at most 512 bytes of UTF-8")
		return nil, false
	}
	c := &caller{principal: p, address: addressOf(r), request: bulkhead.NewRequestID(time.Now()), reason: reason}
	w.Header().Set("X-Request-Id", string(c.request))
	return r.WithContext(context.WithValue(r.Context(), callerKey{}, c)), true
}

func reasonParameter(required bool) *huma.Param {
	maxLength := audit.MaxText
	return &huma.Param{
		Name: wire.Reason, In: "header", Description: "why, for the audit trail; wanted where content is read by a grant", Required: required,
		Schema: &huma.Schema{Type: huma.TypeString, MaxLength: &maxLength},
	}
}
