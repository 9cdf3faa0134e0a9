package sso

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/bulkhead-ai/bulkhead/configs"
)

// skew is how far an issuer's clock may be ahead of this node's.
const skew = time.Minute

// issuer is one identity provider. It is safe for concurrent use.
type issuer struct {
	conf       configs.Issuer
	client     *http.Client
	log        *zap.Logger
	generation atomic.Uint64 // grows when a key changes or goes

	mu      sync.Mutex
	keys    []key
	fetched time.Time            // when they came; zero = never
	brought uint64               // number of the fetch that brought keys; 0 = none did
	begun   uint64               // number of the latest fetch
	failure error                // of the latest fetch that ended
	flight  *flight              // the fetch under way
	absent  map[string]time.Time // names of keys that the issuer did not have at that time
	budget  budget
}

func newIssuer(c configs.Issuer, transport http.RoundTripper, log *zap.Logger) (*issuer, error) {
	client, err := newClient(c.CAFile, transport)
	if err != nil {
		return nil, err
	}
	return &issuer{
		conf: c, client: client, log: log.Named("sso").With(zap.String("issuer", c.Issuer)),
		absent: map[string]time.Time{}, budget: budget{left: refreshBurst},
	}, nil
}

// export tells how old the keys are: what a node goes on with while its issuer is
// down, and what an alarm is made of.
func (i *issuer) export(to prometheus.Registerer) error {
	if to == nil {
		return nil
	}
	age := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Namespace: "bulkhead", Subsystem: "sso", Name: "keys_age_seconds",
		Help:        "Time since an identity provider's keys were fetched; -1 while they never were.",
		ConstLabels: prometheus.Labels{"issuer": i.conf.Issuer},
	}, func() float64 {
		i.mu.Lock()
		defer i.mu.Unlock()
		if i.fetched.IsZero() {
			return -1
		}
		return time.Since(i.fetched).Seconds()
	})
	if err := to.Register(age); err != nil {
		return fmt.Errorf("register metrics: %w", err)
	}
	return nil
}

// plausible refuses what no signature could make good.
func (i *issuer) plausible(h header, c *claims, now time.Time) error {
	switch {
	case !slices.Contains(i.conf.Algorithms, h.Algorithm):
		return errors.New("the algorithm is not pinned")
	case len(h.Critical) > 0 || len(h.KeyID) > maxKeyID:
		return errors.New("the header wants what is not understood")
	case !tokenType(h.Type):
		return errors.New("not the type of an identity or access token")
	case c.all["events"] != nil:
		return errors.New("a logout token or another event") // RFC 8417: signed by the same keys
	case !now.Before(c.expires):
		return errors.New("expired")
	case c.from.After(now.Add(skew)):
		return errors.New("not valid yet")
	case !overlap(c.audience, i.conf.Audiences.Admin) && !overlap(c.audience, i.conf.Audiences.Data):
		return errors.New("for another audience")
	}
	return nil
}

// tokenType tells tokens of people from others that the same keys sign, where
// they say so.
func tokenType(typ string) bool {
	typ = strings.TrimPrefix(strings.ToLower(typ), "application/")
	return typ == "" || typ == "jwt" || typ == "at+jwt" || typ == "id+jwt"
}

// verify checks a token's signature and answers the generation of the keys it was
// checked with. A key that is not known is asked for.
func (i *issuer) verify(ctx context.Context, token string, h header) (generation uint64, err error) {
	asked := i.fetches()
	for {
		keys, brought, generation := i.fitting(h)
		if len(keys) > 0 && i.signed(ctx, token, keys) {
			return generation, nil
		}
		switch {
		case h.KeyID != "" && len(keys) > 0:
			return 0, errToken.With(errors.New("the signature is wrong"))
		case brought > asked: // the fetch began after the token had come
			i.noteAbsent(h.KeyID)
			return 0, errToken.With(errors.New("the issuer has no such key"))
		case i.isAbsent(h.KeyID):
			return 0, errToken.With(errors.New("the issuer had no such key"))
		}
		if err := i.refresh(ctx); err != nil {
			return 0, errUnavailable.With(fmt.Errorf("keys of %s: %w", i.conf.Issuer, err))
		}
	}
}

// signed reports whether one of the keys signed the token, and the verifier finds
// nothing else wrong with it.
func (i *issuer) signed(ctx context.Context, token string, keys []crypto.PublicKey) bool {
	v := oidc.NewVerifier(i.conf.Issuer, &oidc.StaticKeySet{PublicKeys: keys}, &oidc.Config{
		SupportedSigningAlgs: i.conf.Algorithms,
		SkipClientIDCheck:    true, // it knows one audience; plausible and verified know the lists
	})
	_, err := v.Verify(ctx, token)
	return err == nil
}
