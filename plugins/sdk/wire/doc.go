// Package wire is the protocol between the worker and a plugin process, generated
// from adapter.proto, and the conversions to and from package provider.
//
// It guarantees that every field of the contract survives the way there and
// back. It does not judge values: what a plugin says is checked by package host.
package wire

//go:generate sh generate.sh
