package chat

import (
	"net/http"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/worker/control"
)

var (
	errTokenExpired = bulkhead.E(bulkhead.Unauthenticated, "invalid_token", "The token is not valid.")

	errNoPlace = bulkhead.E(bulkhead.PermissionDenied, "place_not_found",
		"The project, environment or service account that requests of people are booked on does not exist.")
)

// holder answers whose request it is, nil if the policy knows nothing of it: a
// key, or a person, who is to the rest of this package a key at the place where
// the gateway books people's requests. Whether it may still be used is not said.
func (v *view) holder(h *control.Head) *control.Key {
	m := h.Member
	if m == nil {
		return v.keys[h.Key]
	}
	if _, ok := v.policy.Projects[m.Project].Environments[m.Env]; !ok || v.accounts[[2]string{m.Project, m.Account}] == nil {
		return nil
	}
	return &control.Key{
		ID: h.Key, Project: m.Project, Env: m.Env, Account: m.Account, Owner: m.Owner, Personal: true,
		ExpiresAt: time.UnixMilli(m.ExpiresAt),
	}
}

// identify is holder for a credential that may be used at now.
func (v *view) identify(h *control.Head, now time.Time) (*control.Key, error) {
	if h.Member == nil {
		return v.key(h.Key, now)
	}
	if h.Member.Expired(now) {
		return nil, errTokenExpired
	}
	k := v.holder(h)
	if k == nil {
		return nil, errNoPlace
	}
	return k, nil
}

// tagMember names the person as the user of a request that names none: the tag is
// there for services, which act for people that their key says nothing of.
func tagMember(r *http.Request, h *control.Head) {
	if h.Member != nil && r.Header.Get(control.HeaderUser) == "" {
		r.Header.Set(control.HeaderUser, h.Member.Owner)
	}
}
