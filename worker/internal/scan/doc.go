// Package scan reads a client's JSON body once, strictly, and tells the worker
// what it needs for limits and routing. The bytes stay as they are.
//
// Guaranteed for every body that Body accepts: it is one JSON object in valid
// UTF-8 and nothing else; no object in it, at any depth, has two keys that are
// equal after unescaping; no top-level key is another spelling (case, Unicode
// folding, escapes) of a field that the gateway or a provider acts on; it is at
// most MaxDepth deep and has at most MaxKeys keys; every number is finite and at
// most MaxNumber bytes long. So encoding/json, gjson and a provider's parser
// read the same model, stream flag and ceilings out of it as this package does.
//
// Time and memory are linear in the body; a usual body costs three small
// allocations, whatever its length.
//
// Not done here: whether the model exists, whether an unknown field makes sense
// (it passes untouched), and any change to the body (adapters do that).
package scan
