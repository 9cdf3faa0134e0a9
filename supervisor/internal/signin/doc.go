// Package signin gets a person a token of the company's identity provider, for
// the command line: in a browser (authorization code with PKCE, RFC 8252), or
// with a code that is typed into a browser elsewhere (device grant, RFC 8628).
// Tokens are kept in a file of the person until they sign out, and renewed with
// the refresh token where the provider gives one.
//
// Guaranteed: the state of a browser's return, PKCE and the nonce of the ID token
// are checked; the listener for the browser is on loopback and ends with the
// sign-in; the file is readable by its owner alone, and one that others may read
// is refused.
//
// Not guaranteed: this package does not decide who may do what. It looks at a
// token only to see that it is the answer to this sign-in; the node verifies it.
package signin
