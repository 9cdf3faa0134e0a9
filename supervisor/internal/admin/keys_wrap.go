package admin

import (
	"context"
	"crypto/subtle"
	"net/http"
	"sync"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/cluster/command"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin/wire"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/apikey"
)

// linkPath is where a link's token is spent. In a link the token stands behind a
// number sign, which no client sends to a server, so that no proxy, log or mail
// scanner that opens the link spends or keeps it.
const linkPath = "/admin/v1/unwrap"

type unwrapInput struct {
	Writing
	Body wire.Unwrap
}

type unwrappedOutput struct{ Body wire.Unwrapped }

// errLink is the answer to everything that is wrong with a link: whoever guesses
// learns nothing.
var errLink = coded(http.StatusNotFound, "wrap_not_found", "the link is not valid, has expired or was used already; if you did not use it, somebody else has the key: have it revoked")

// wrap stores the key sealed under a link's token, which is stored nowhere.
func (a *API) wrap(ctx context.Context, op string, k *command.Key, secret string, life time.Duration) (apikey.Link, error) {
	link, err := apikey.NewLink(string(k.ID))
	if err != nil {
		return link, err
	}
	sealed, err := link.Seal(secret)
	if err != nil {
		return link, err
	}
	_, err = a.cfg.Cluster.ProposeID(ctx, partOp(op, "wrap"), &command.CreateWrap{
		ID: link.ID(), Hash: link.Hash(), Sealed: sealed, Tenant: k.Tenant, Key: k.ID,
		ExpiresAt: time.Now().Add(life).UnixMilli(),
	})
	return link, err
}

// aboutUnwrap finds the key that a token names. A token that was spent is an
// event of the key's tenant: either its reader came twice, or somebody came
// before. One that names no key is a guess, and counted as every other wrong
// credential is.
func (a *API) aboutUnwrap() func(context.Context, *unwrapInput) (matter, error) {
	var late lateReaders
	return func(_ context.Context, in *unwrapInput) (matter, error) {
		link, err := apikey.ParseLink(in.Body.Token)
		if err != nil {
			return matter{stranger: true}, errLink
		}
		v, now := a.cfg.Cluster.State().View(), time.Now()
		k, ok := v.Key(bulkhead.KeyID(link.KeyID()))
		if !ok {
			return matter{stranger: true}, errLink
		}
		m := matter{tenants: []bulkhead.TenantID{k.Tenant}, env: k.Env, object: "Key " + string(k.ID), before: keyOf(v, &k)}
		w, ok := v.Wrapped(link.ID())
		if ok && live(&k, now.UnixMilli()) && w.ExpiresAt > now.UnixMilli() && subtle.ConstantTimeCompare(w.Hash, link.Hash()) == 1 {
			return m, nil
		}
		m.stranger = !late.tell(k.ID, now)
		return m, errLink
	}
}

// lateReaders bounds the events of links that do not work to one a minute and
// key: whoever knows a key's id could fill the trail otherwise.
type lateReaders struct {
	mu   sync.Mutex
	told map[bulkhead.KeyID]time.Time
}

const (
	latePeriod = time.Minute
	maxLate    = 1024 // keys that are told apart; it starts anew after them
)

// tell reports whether this one is to be told.
func (l *lateReaders) tell(key bulkhead.KeyID, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if at, ok := l.told[key]; ok && now.Sub(at) < latePeriod {
		return false
	}
	if l.told == nil || len(l.told) >= maxLate {
		l.told = map[bulkhead.KeyID]time.Time{}
	}
	l.told[key] = now
	return true
}

// unwrapKey spends the link. The state machine decides who came first.
func (a *API) unwrapKey(ctx context.Context, in *unwrapInput) (*unwrappedOutput, error) {
	link, err := apikey.ParseLink(in.Body.Token)
	if err != nil {
		return nil, errLink
	}
	// Never the same name twice: a repeated read is a second read.
	result, err := a.propose(ctx, "unwrap key", Writing{}.op(), &command.OpenWrap{ID: link.ID(), Hash: link.Hash()})
	if statusOf(err) == http.StatusNotFound {
		return nil, errLink
	}
	if err != nil {
		return nil, err
	}
	sealed, _ := result.([]byte)
	key, err := link.Open(sealed)
	if err != nil {
		return nil, a.fail("unwrap key", err)
	}
	return &unwrappedOutput{wire.Unwrapped{ID: bulkhead.KeyID(link.KeyID()), Key: key}}, nil
}
