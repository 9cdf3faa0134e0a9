package sso

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"
)

// header is what of a token's own head is looked at: which key, which algorithm.
// Keys and addresses of keys that it may carry (jwk, jku, x5u, x5c) are not.
type header struct {
	Algorithm string   `json:"alg"`
	KeyID     string   `json:"kid"`
	Type      string   `json:"typ"`
	Critical  []string `json:"crit"`
}

// claims is what a token says.
type claims struct {
	issuer   string
	subject  string
	audience []string
	expires  time.Time
	from     time.Time // nbf; zero = none
	all      map[string]json.RawMessage
}

const (
	maxSubject = 255 // bytes; OpenID Connect Core, section 2
	maxKeyID   = 512
)

var errForm = errors.New("not a signed token")

// parse takes a compact token apart. Nothing in it is believed yet.
func parse(token string) (header, *claims, error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 || parts[2] == "" {
		return header{}, nil, errForm
	}
	// A token has one spelling: decoders pass over line feeds and the spare bits of
	// a last character, and one token would be many.
	if strings.ContainsAny(token, "\r\n") {
		return header{}, nil, errForm
	}
	if _, err := base64.RawURLEncoding.Strict().DecodeString(parts[2]); err != nil {
		return header{}, nil, errForm
	}
	var h header
	if err := decode(parts[0], &h); err != nil {
		return header{}, nil, fmt.Errorf("read header: %w", err)
	}
	c := new(claims)
	if err := decode(parts[1], &c.all); err != nil {
		return header{}, nil, fmt.Errorf("read claims: %w", err)
	}
	if err := c.standard(); err != nil {
		return header{}, nil, err
	}
	return h, c, nil
}

func decode(part string, into any) error {
	raw, err := base64.RawURLEncoding.Strict().DecodeString(part)
	if err != nil {
		return errForm
	}
	if err := json.Unmarshal(raw, into); err != nil {
		return errForm // the text of err may quote the token
	}
	return nil
}

// standard reads the claims that every token must have, and nbf.
func (c *claims) standard() error {
	c.issuer, c.subject = c.text("iss"), c.text("sub")
	c.audience = c.texts("aud")
	if c.issuer == "" || c.subject == "" || len(c.subject) > maxSubject || len(c.audience) == 0 {
		return errors.New("iss, sub or aud is missing")
	}
	var ok bool
	if c.expires, ok = c.date("exp"); !ok {
		return errors.New("exp is missing")
	}
	if c.from, ok = c.date("nbf"); !ok && c.all["nbf"] != nil {
		return errors.New("nbf is no date")
	}
	return nil
}

// text is a claim that is one string, "" when it is not.
func (c *claims) text(name string) string {
	var s string
	if json.Unmarshal(c.all[name], &s) != nil {
		return ""
	}
	return s
}

// texts is a claim that is a string, a number, true or false, or a list of those;
// anything else in it says nothing.
func (c *claims) texts(name string) []string {
	raw := c.all[name]
	var list []json.RawMessage
	if json.Unmarshal(raw, &list) != nil {
		list = []json.RawMessage{raw}
	}
	var out []string
	for _, item := range list {
		var v any
		if json.Unmarshal(item, &v) != nil {
			continue
		}
		switch v := v.(type) {
		case string:
			if v != "" {
				out = append(out, v)
			}
		case float64, bool:
			out = append(out, string(item))
		}
	}
	return out
}

// date is a claim that is a NumericDate.
func (c *claims) date(name string) (time.Time, bool) {
	var seconds *float64
	if json.Unmarshal(c.all[name], &seconds) != nil || seconds == nil || math.Abs(*seconds) > 1e11 {
		return time.Time{}, false
	}
	return time.UnixMilli(int64(*seconds * 1000)), true
}

// email is the address that the issuer vouches for, in lower case as grants have
// it. One that says that it is not verified is none; one that says nothing counts,
// because the company's own directory is where it comes from.
func (c *claims) email(name string) string {
	if v := c.all["email_verified"]; v != nil && string(v) != "true" && string(v) != `"true"` {
		return ""
	}
	s := c.text(name)
	at := strings.IndexByte(s, '@')
	if at <= 0 || at == len(s)-1 || strings.Count(s, "@") != 1 || len(s) > 254 || strings.ContainsFunc(s, notPrintable) {
		return ""
	}
	return strings.ToLower(s)
}

// notPrintable refuses what could break a line of a log or look like another
// address: everything but visible ASCII.
func notPrintable(r rune) bool { return r <= ' ' || r >= 0x7f }
