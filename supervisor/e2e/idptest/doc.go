// Package idptest runs real identity providers for stories: Dex, built from its
// module; the npm package oidc-provider, where Node is present; and a SAML
// provider behind Dex. Browser does what a person does with their forms.
//
// All of them listen on loopback and end with the test.
package idptest
