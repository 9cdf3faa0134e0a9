package control

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/bulkhead-ai/bulkhead"
)

// The headers of a request between gateway and worker. The gateway strips every
// x-bulkhead-* header that a client sent but the two tags, so a worker may
// believe HeaderRequest.
const (
	HeaderRequest = "X-Bulkhead-Request"
	HeaderFeature = "X-Bulkhead-Feature"
	HeaderUser    = "X-Bulkhead-User"
)

// Head is what the gateway found out about a request.
type Head struct {
	Request bulkhead.RequestID
	Key     bulkhead.KeyID // of a key, or of the Member
	Rev     uint64         // the worker must have applied at least this policy before it decides
	Member  *Member        // nil: Key is in the policy
}

// Member is a person who used no key but a token of an identity provider. The
// gateway has checked it; where its requests are booked comes from the node's
// configuration.
type Member struct {
	Project   string
	Env       string
	Account   string
	Owner     string // e-mail address; where the token has none, what it calls the person
	ExpiresAt int64  // of the token, Unix milliseconds; never 0
}

const (
	personPrefix = "person_"
	personDigits = 16
	maxOwner     = 256 // bytes
)

// PersonID names the person that an issuer calls subject, for ever: the first
// 64 bits of SHA-256(issuer NUL subject). It stands where a key's id does.
func PersonID(sum [32]byte) bulkhead.KeyID {
	return bulkhead.KeyID(fmt.Sprintf("%s%x", personPrefix, sum[:personDigits/2]))
}

// IsPerson reports whether an id is one of PersonID and not a key's.
func IsPerson(id bulkhead.KeyID) bool {
	digits, ok := strings.CutPrefix(string(id), personPrefix)
	return ok && len(digits) == personDigits && strings.Trim(digits, "0123456789abcdef") == ""
}

// Expired reports whether the token has expired at now.
func (m *Member) Expired(now time.Time) bool { return now.UnixMilli() >= m.ExpiresAt }

// Set writes the head into h.
func (d Head) Set(h http.Header) { h[HeaderRequest] = []string{d.Value()} }

// Value is the value of HeaderRequest, for those who write heads themselves.
// Texts of a Member are encoded, whatever they hold.
func (d Head) Value() string {
	v := string(d.Request) + " " + string(d.Key) + " " + strconv.FormatUint(d.Rev, 10)
	if m := d.Member; m != nil {
		for _, s := range [...]string{m.Project, m.Env, m.Account, m.Owner} {
			v += " " + base64.RawURLEncoding.EncodeToString([]byte(s))
		}
		v += " " + strconv.FormatInt(m.ExpiresAt, 10)
	}
	return v
}

var errHead = errors.New("header " + HeaderRequest + ": malformed")

// ParseHead reads what Set wrote, and nothing else: one header line, decimal
// numbers as Value writes them, a Member with the id of a person only.
func ParseHead(h http.Header) (Head, error) {
	lines := h[HeaderRequest]
	if len(lines) != 1 {
		return Head{}, errHead
	}
	req, rest, ok1 := strings.Cut(lines[0], " ")
	key, rest, ok2 := strings.Cut(rest, " ")
	revText, rest, person := strings.Cut(rest, " ")
	rev, err := strconv.ParseUint(revText, 10, 64)
	decimal := err == nil && (len(revText) == 1 || revText[0] != '0')
	if !ok1 || !ok2 || !decimal || req == "" || key == "" || person != IsPerson(bulkhead.KeyID(key)) {
		return Head{}, errHead
	}
	d := Head{Request: bulkhead.RequestID(req), Key: bulkhead.KeyID(key), Rev: rev}
	if !person {
		return d, nil
	}
	if d.Member = parseMember(rest); d.Member == nil || d.Value() != lines[0] {
		return Head{}, errHead // the latter is a second spelling of the same
	}
	return d, nil
}

// parseMember answers nil for what Value does not write of a sane Member.
func parseMember(s string) *Member {
	fields := strings.Split(s, " ")
	if len(fields) != 5 {
		return nil
	}
	var m Member
	for i, to := range [...]*string{&m.Project, &m.Env, &m.Account, &m.Owner} {
		b, err := base64.RawURLEncoding.Strict().DecodeString(fields[i])
		if err != nil {
			return nil
		}
		*to = string(b)
	}
	var err error
	if m.ExpiresAt, err = strconv.ParseInt(fields[4], 10, 64); err != nil || m.ExpiresAt <= 0 {
		return nil
	}
	if !bulkhead.ValidName(m.Project) || !bulkhead.ValidName(m.Env) || !bulkhead.ValidName(m.Account) {
		return nil
	}
	if m.Owner == "" || len(m.Owner) > maxOwner || !utf8.ValidString(m.Owner) || strings.ContainsFunc(m.Owner, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return nil
	}
	return &m
}
