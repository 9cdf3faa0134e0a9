package signin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
)

// Provider is an identity provider as the node names it.
type Provider struct {
	Issuer     string
	ClientID   string   // of the command line: a public client, it has no secret
	Scopes     []string // openid is added
	Audience   string   // to ask for; "" = not said
	UseIDToken bool     // the ID token is the credential, not the access token
	HTTP       *http.Client
}

// Token is what the command line shows the node.
type Token struct {
	Bearer  string    `json:"bearer"`
	Refresh string    `json:"refresh,omitempty"`
	Expiry  time.Time `json:"expiry,omitzero"`
}

// client is a provider whose discovery document was read.
type client struct {
	cfg      Provider
	oauth    oauth2.Config
	verifier *oidc.IDTokenVerifier
}

func (p Provider) discover(ctx context.Context) (*client, context.Context, error) {
	ctx = oidc.ClientContext(ctx, p.HTTP)
	found, err := oidc.NewProvider(ctx, p.Issuer)
	if err != nil {
		return nil, ctx, fmt.Errorf("ask %s how to sign in: %w", p.Issuer, err)
	}
	scopes := append([]string{oidc.ScopeOpenID}, p.Scopes...)
	return &client{
		cfg:      p,
		oauth:    oauth2.Config{ClientID: p.ClientID, Endpoint: found.Endpoint(), Scopes: distinct(scopes)},
		verifier: found.VerifierContext(ctx, &oidc.Config{ClientID: p.ClientID}),
	}, ctx, nil
}

func distinct(list []string) (out []string) {
	seen := map[string]bool{}
	for _, s := range list {
		if !seen[s] {
			seen[s] = true
			out = append(out, s)
		}
	}
	return out
}

// audience says for whom the token is to be, where the provider wants to know.
func (c *client) audience() []oauth2.AuthCodeOption {
	if c.cfg.Audience == "" {
		return nil
	}
	return []oauth2.AuthCodeOption{oauth2.SetAuthURLParam("audience", c.cfg.Audience)}
}

// take picks the credential out of the provider's answer. nonce is "" where the
// grant has none.
func (c *client) take(ctx context.Context, t *oauth2.Token, nonce string) (Token, error) {
	out := Token{Bearer: t.AccessToken, Refresh: t.RefreshToken, Expiry: t.Expiry}
	raw, ok := t.Extra("id_token").(string)
	if ok && raw != "" {
		id, err := c.verifier.Verify(ctx, raw)
		if err != nil {
			return Token{}, fmt.Errorf("check the ID token of %s: %w", c.cfg.Issuer, err)
		}
		if nonce != "" && id.Nonce != nonce {
			return Token{}, errors.New("the ID token answers another sign-in")
		}
		if c.cfg.UseIDToken {
			out.Bearer, out.Expiry = raw, id.Expiry
		}
	} else if c.cfg.UseIDToken {
		return Token{}, fmt.Errorf("%s answered without an ID token", c.cfg.Issuer)
	}
	if out.Bearer == "" {
		return Token{}, fmt.Errorf("%s answered without a token", c.cfg.Issuer)
	}
	return out, nil
}

// Renew gets a new token for an old one's refresh token.
func (p Provider) Renew(ctx context.Context, old Token) (Token, error) {
	if old.Refresh == "" {
		return Token{}, errors.New("the sign-in is over: sign in again")
	}
	c, ctx, err := p.discover(ctx)
	if err != nil {
		return Token{}, err
	}
	t, err := c.oauth.TokenSource(ctx, &oauth2.Token{RefreshToken: old.Refresh}).Token()
	if err != nil {
		return Token{}, fmt.Errorf("renew the sign-in at %s: %w", p.Issuer, err)
	}
	fresh, err := c.take(ctx, t, "")
	if fresh.Refresh == "" {
		fresh.Refresh = old.Refresh
	}
	return fresh, err
}
