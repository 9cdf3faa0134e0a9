package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/bulkhead-ai/bulkhead/supervisor/internal/admin/wire"
	"github.com/bulkhead-ai/bulkhead/supervisor/internal/signin"
	"github.com/spf13/cobra"
)

// signInTimeout is how long a person may take.
const signInTimeout = 10 * time.Minute

func (a *app) loginCommand() *cobra.Command {
	var issuer, issuerCA string
	var device, noOpen bool
	c := &cobra.Command{
		Use: "login", Short: "Sign in with the company's identity provider, in a browser here or (--device) anywhere", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			addrs, err := parseAddrs(firstOf(a.addr, a.streams.Getenv("BULKHEAD_ADDR"), defaultAddr))
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), signInTimeout)
			defer cancel()
			s, err := a.signInInfo(ctx, addrs, issuer)
			if err != nil {
				return err
			}
			s.IssuerCA = issuerCA
			p, err := provider(s)
			if err != nil {
				return err
			}
			if device {
				s.Token, err = p.Device(ctx, a.showCode)
			} else {
				s.Token, err = p.Browser(ctx, func(url string) { a.showPage(url, !noOpen) })
			}
			if err != nil {
				return err
			}
			if err := signin.Save(a.sessionFile(), s); err != nil {
				return err
			}
			fmt.Fprintln(a.streams.Err, "Signed in at "+s.Issuer+".")
			return nil
		},
	}
	f := c.Flags()
	f.StringVar(&issuer, "issuer", "", "which identity provider, where the nodes know several")
	f.StringVar(&issuerCA, "issuer-ca-file", "", "PEM certificates to trust for the identity provider (default: the system's)")
	f.BoolVar(&device, "device", false, "print a code to type into a browser on any machine")
	f.BoolVar(&noOpen, "no-browser", false, "only print the address, open no browser")
	return c
}

func (a *app) logoutCommand() *cobra.Command {
	return &cobra.Command{
		Use: "logout", Short: "Forget the sign-in of this machine; it does not end the one at the identity provider", Args: noArgs,
		RunE: func(*cobra.Command, []string) error { return signin.Forget(a.sessionFile()) },
	}
}

func (a *app) showPage(url string, open bool) {
	fmt.Fprintln(a.streams.Err, "Open this address in a browser on this machine to sign in:\n\n  "+url+"\n")
	if open && a.streams.Progress {
		// The address stands above: that no browser comes up is no error.
		if cmd := exec.Command("xdg-open", url); cmd.Start() == nil {
			go cmd.Wait()
		}
	}
}

func (a *app) showCode(url, code string) {
	fmt.Fprintf(a.streams.Err, "Open %s in any browser and enter the code %s\n", url, code)
}

// signInInfo asks the nodes in turn how people sign in.
func (a *app) signInInfo(ctx context.Context, addrs []string, issuer string) (signin.Session, error) {
	cl, err := a.clientWith(addrs, "")
	if err != nil {
		return signin.Session{}, err
	}
	var info wire.SignIn
	if err := cl.do(ctx, call{method: http.MethodGet, path: "/sign-in"}, &info); err != nil {
		return signin.Session{}, err
	}
	var names []string
	for _, p := range info.Providers {
		names = append(names, p.Issuer)
		if issuer == "" || issuer == p.Issuer || issuer == p.Name {
			return signin.Session{
				Addrs: addrs, Issuer: p.Issuer, ClientID: p.ClientID, Scopes: p.Scopes, Audience: p.Audience, UseIDToken: p.UseIDToken,
			}, nil
		}
	}
	if len(names) == 0 {
		return signin.Session{}, errors.New("these nodes know no identity provider: use the node's token (BULKHEAD_TOKEN)")
	}
	return signin.Session{}, usagef("--issuer %s: want one of %s", issuer, strings.Join(names, ", "))
}

func provider(s signin.Session) (signin.Provider, error) {
	hc := &http.Client{Timeout: 30 * time.Second}
	if s.IssuerCA != "" {
		conf, err := trust(s.IssuerCA)
		if err != nil {
			return signin.Provider{}, err
		}
		hc.Transport = &http.Transport{TLSClientConfig: conf, Proxy: http.ProxyFromEnvironment}
	}
	return signin.Provider{Issuer: s.Issuer, ClientID: s.ClientID, Scopes: s.Scopes, Audience: s.Audience, UseIDToken: s.UseIDToken, HTTP: hc}, nil
}

// sessionFile is where the sign-in is kept.
func (a *app) sessionFile() string {
	if f := a.streams.Getenv("BULKHEAD_SESSION_FILE"); f != "" {
		return f
	}
	base := a.streams.Getenv("XDG_CONFIG_HOME")
	if base == "" {
		base = filepath.Join(a.streams.Getenv("HOME"), ".config")
	}
	return filepath.Join(base, "bulkhead", "session.json")
}

// signedIn answers the token of the sign-in for the addresses, renewed when its
// time is nearly over. A token is shown to no node but those that it was got for.
func (a *app) signedIn(ctx context.Context, addrs []string) (string, error) {
	path := a.sessionFile()
	s, err := signin.Load(path)
	if err != nil {
		return "", err
	}
	for _, addr := range addrs {
		if !slices.Contains(s.Addrs, addr) {
			return "", fmt.Errorf("%w at %s: sign in with bulkhead login --addr %s", signin.ErrNone, addr, addr)
		}
	}
	if s.Token.Expiry.IsZero() || time.Until(s.Token.Expiry) > 30*time.Second {
		return s.Token.Bearer, nil
	}
	p, err := provider(s)
	if err != nil {
		return "", err
	}
	if s.Token, err = p.Renew(ctx, s.Token); err != nil {
		return "", fmt.Errorf("%w; sign in again with bulkhead login", err)
	}
	return s.Token.Bearer, signin.Save(path, s)
}
