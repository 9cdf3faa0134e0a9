// Package sso finds out who holds a token of an identity provider (OIDC): a
// Principal for the admin API, a Member for the data plane. It only checks
// tokens; signing in is between a person's browser or command line and the
// provider.
//
// It guarantees that
//   - nothing of a token counts before its signature is checked with a public key
//     that its issuer publishes, under an algorithm that the configuration pins;
//     the token's own header chooses among those keys by name and nothing else;
//   - issuer, audience of the surface, expiry and nbf hold at every use, also of a
//     token that was seen before: what is remembered is found by the SHA-256 of
//     the whole token, ends with the token, and ends when the issuer withdraws
//     or changes a key;
//   - a tenant that a claim names exists and comes through a rule of the
//     configuration, or it is not there;
//   - whatever is wrong with a token, the answer is one and the same error of
//     kind Unauthenticated. An issuer that cannot be asked is Unavailable, and
//     only for tokens whose key is not known yet: never "wrong token", never a
//     way in;
//   - an issuer is asked for its keys in the background and, for tokens with an
//     unknown key, at most refreshBurst times at once and then once in
//     refreshEvery, however many such tokens arrive.
//
// Not guaranteed: that a person who was dismissed is out before the token ends
// (tokens should be short-lived), or before keysEvery where the issuer withdraws
// its key. azp, nonce and acr are not looked at. An issuer that gives no e-mail
// address, or an unverified one, yields a person without one.
//
// A token's way is People.verified -> cache, or claims -> issuer.verify (keys) ->
// cache; then roles maps what it says to what the configuration gives for it.
package sso
