package signin

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
)

// Browser signs in with a browser on this machine. show gets the address that
// the person must open. It ends with ctx.
func (p Provider) Browser(ctx context.Context, show func(url string)) (Token, error) {
	c, ctx, err := p.discover(ctx)
	if err != nil {
		return Token{}, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return Token{}, fmt.Errorf("listen for the browser: %w", err)
	}
	r := &returned{state: rand.Text(), result: make(chan callback, 1)}
	srv := &http.Server{Handler: r, ReadHeaderTimeout: 5 * time.Second}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	defer func() {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		srv.Shutdown(end) // lets the browser read its page
		srv.Close()
		<-served
	}()
	c.oauth.RedirectURL = "http://" + l.Addr().String() + callbackPath
	verifier, nonce := oauth2.GenerateVerifier(), rand.Text()
	show(c.oauth.AuthCodeURL(r.state, append(c.audience(), oauth2.S256ChallengeOption(verifier), oidc.Nonce(nonce))...))
	select {
	case got := <-r.result:
		if got.err != nil {
			return Token{}, got.err
		}
		t, err := c.oauth.Exchange(ctx, got.code, oauth2.VerifierOption(verifier))
		if err != nil {
			return Token{}, fmt.Errorf("get the token of %s: %w", p.Issuer, err)
		}
		return c.take(ctx, t, nonce)
	case <-ctx.Done():
		return Token{}, fmt.Errorf("wait for the browser: %w", ctx.Err())
	}
}

const callbackPath = "/callback"

type callback struct {
	code string
	err  error
}

// returned takes the browser's return. Only the first one that knows the state
// counts: any page can make a browser call a loopback address.
type returned struct {
	state  string
	result chan callback
}

func (r *returned) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	q := req.URL.Query()
	known := subtle.ConstantTimeCompare([]byte(q.Get("state")), []byte(r.state)) == 1
	if req.Method != http.MethodGet || req.URL.Path != callbackPath || !known {
		http.Error(w, "This is not the answer to a sign-in that was begun here.", http.StatusBadRequest)
		return
	}
	got, page := callback{code: q.Get("code")}, "You are signed in. You may close this window."
	if got.code == "" {
		got.err = fmt.Errorf("the sign-in was refused: %.200q %.500q", q.Get("error"), q.Get("error_description"))
		page = "The sign-in was refused. The command line says why."
	}
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'")
	h.Set("Cache-Control", "no-store")
	fmt.Fprintln(w, page)
	select {
	case r.result <- got:
	default: // it was answered already
	}
}

// Device signs in with a code that the person types into a browser anywhere.
// show gets the address and the code. It ends with ctx, or when the code expires.
func (p Provider) Device(ctx context.Context, show func(url, code string)) (Token, error) {
	c, ctx, err := p.discover(ctx)
	if err != nil {
		return Token{}, err
	}
	if c.oauth.Endpoint.DeviceAuthURL == "" {
		return Token{}, fmt.Errorf("%s has no device grant: sign in with a browser on this machine", p.Issuer)
	}
	verifier := oauth2.GenerateVerifier()
	opts := append(c.audience(), oauth2.S256ChallengeOption(verifier))
	code, err := c.oauth.DeviceAuth(ctx, opts...)
	if err != nil {
		return Token{}, fmt.Errorf("ask %s for a code: %w", p.Issuer, err)
	}
	url := code.VerificationURIComplete
	if url == "" {
		url = code.VerificationURI
	}
	show(url, code.UserCode)
	t, err := c.oauth.DeviceAccessToken(ctx, code, oauth2.VerifierOption(verifier))
	if err != nil {
		var refused *oauth2.RetrieveError
		if errors.As(err, &refused) && refused.ErrorCode != "" {
			return Token{}, fmt.Errorf("the sign-in was refused: %s", refused.ErrorCode)
		}
		return Token{}, fmt.Errorf("wait for the sign-in at %s: %w", p.Issuer, err)
	}
	return c.take(ctx, t, "")
}
