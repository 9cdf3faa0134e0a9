package idptest

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strings"

	"golang.org/x/net/html"
)

// Browser opens an address as a person does: it follows redirects, fills in the
// forms that ask for a name and a password, presses the buttons that ask for
// consent, and answers the text of the page where nothing is left to fill in.
// code is what to type into a field for a device's code, "" = nothing.
func Browser(address, email, code string) (string, error) {
	jar, err := cookiejar.New(nil)
	if err != nil {
		return "", err
	}
	c := &http.Client{Jar: jar}
	resp, err := c.Get(address)
	for range 20 {
		if err != nil {
			return "", err
		}
		body, readErr := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
		resp.Body.Close()
		if readErr != nil {
			return "", readErr
		}
		if resp.StatusCode >= http.StatusBadRequest {
			return "", fmt.Errorf("%s: %s: %.300s", resp.Request.URL, resp.Status, body)
		}
		doc, parseErr := html.Parse(strings.NewReader(string(body)))
		if parseErr != nil {
			return "", parseErr
		}
		next := action(doc, email, code)
		if next == nil {
			return text(doc), nil
		}
		to, parseErr := resp.Request.URL.Parse(next.action)
		if parseErr != nil {
			return "", parseErr
		}
		if next.method == http.MethodGet {
			if len(next.values) > 0 {
				to.RawQuery = next.values.Encode()
			}
			resp, err = c.Get(to.String())
			continue
		}
		resp, err = c.PostForm(to.String(), next.values)
	}
	return "", errors.New("the provider's forms have no end")
}

// step is what a person would do on a page.
type step struct {
	method, action string
	values         url.Values
}

// action is the first form of the page, filled in, or the link to the provider's
// only way to sign in.
func action(doc *html.Node, email, code string) *step {
	form := find(doc, func(n *html.Node) bool { return n.Data == "form" })
	if form == nil {
		return nil
	}
	s := &step{method: strings.ToUpper(attribute(form, "method")), action: html.UnescapeString(attribute(form, "action")), values: url.Values{}}
	if s.method == "" {
		s.method = http.MethodGet
	}
	walk(form, func(n *html.Node) {
		name, kind := attribute(n, "name"), attribute(n, "type")
		switch {
		case n.Data != "input" && n.Data != "button" || name == "":
		case kind == "password":
			s.values.Set(name, Password)
		case name == "login" || name == "username" || name == "user":
			s.values.Set(name, email)
		case name == "user_code":
			s.values.Set(name, firstOf(attribute(n, "value"), code))
		case kind == "checkbox":
		case n.Data == "button" || kind == "submit":
			if !s.values.Has(name) { // the first button is the one that goes on
				s.values.Set(name, attribute(n, "value"))
			}
		default:
			s.values.Set(name, attribute(n, "value"))
		}
	})
	return s
}

func firstOf(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

func find(n *html.Node, is func(*html.Node) bool) (found *html.Node) {
	walk(n, func(n *html.Node) {
		if found == nil && n.Type == html.ElementNode && is(n) {
			found = n
		}
	})
	return found
}

func walk(n *html.Node, visit func(*html.Node)) {
	visit(n)
	for c := n.FirstChild; c != nil; c = c.NextSibling {
		walk(c, visit)
	}
}

func attribute(n *html.Node, name string) string {
	for _, a := range n.Attr {
		if a.Key == name {
			return a.Val
		}
	}
	return ""
}

func text(n *html.Node) string {
	var b strings.Builder
	walk(n, func(n *html.Node) {
		if n.Type == html.TextNode {
			b.WriteString(n.Data + " ")
		}
	})
	return strings.Join(strings.Fields(b.String()), " ")
}
