package scan

import (
	"strconv"

	"github.com/bulkhead-ai/bulkhead"
)

// The texts name offsets and field names only: never what the body says.

func errJSON(at int, why string) *bulkhead.Error {
	return bulkhead.E(bulkhead.InvalidRequest, "invalid_json",
		"The request body is not valid JSON: "+why+" (byte "+strconv.Itoa(at)+").")
}

func errUTF8(at int) *bulkhead.Error {
	return bulkhead.E(bulkhead.InvalidRequest, "invalid_utf8",
		"The request body is not valid UTF-8 (byte "+strconv.Itoa(at)+").")
}

func errSurrogate(at int) *bulkhead.Error {
	return bulkhead.E(bulkhead.InvalidRequest, "invalid_utf8",
		"The request body holds half of a surrogate pair (byte "+strconv.Itoa(at)+").")
}

func errTrailing(at int) *bulkhead.Error {
	return bulkhead.E(bulkhead.InvalidRequest, "trailing_data",
		"The request body goes on after its JSON object (byte "+strconv.Itoa(at)+").")
}

func errTooDeep(at int) *bulkhead.Error {
	return bulkhead.E(bulkhead.InvalidRequest, "too_deep",
		"The request body is nested more than "+strconv.Itoa(MaxDepth)+" levels deep (byte "+strconv.Itoa(at)+").")
}

func errTooManyKeys() *bulkhead.Error {
	return bulkhead.E(bulkhead.InvalidRequest, "too_many_keys",
		"The request body has more than "+strconv.Itoa(MaxKeys)+" keys.")
}

// errDuplicate names the key only at the top level: deeper ones are content.
func errDuplicate(at int, key []byte, depth int) *bulkhead.Error {
	e := bulkhead.E(bulkhead.InvalidRequest, "duplicate_key",
		"An object of the request body has the same key twice (byte "+strconv.Itoa(at)+").")
	if depth == 1 {
		e.Param = printable(key)
	}
	return e
}

func errAmbiguous(key []byte) *bulkhead.Error {
	e := bulkhead.E(bulkhead.InvalidRequest, "ambiguous_key",
		"A key of the request body is another spelling of a known parameter.")
	e.Param = printable(key)
	return e
}

func errSteering(key []byte) *bulkhead.Error {
	e := bulkhead.E(bulkhead.InvalidRequest, "unknown_parameter",
		"Upstream addresses and credentials cannot be chosen by a request.")
	e.Param = printable(key)
	return e
}

func errValue(param, must string) *bulkhead.Error {
	e := bulkhead.E(bulkhead.InvalidRequest, "invalid_value", param+" "+must+".")
	e.Param = param
	return e
}

func errRange(param string, limit int64) *bulkhead.Error {
	return errValue(param, "must be an integer from 1 to "+strconv.FormatInt(limit, 10))
}

func errNotAllowed(param, message string) *bulkhead.Error {
	e := bulkhead.E(bulkhead.PermissionDenied, "parameter_not_allowed", message)
	e.Param = param
	return e
}

// printable makes a key fit for an error: short, printable ASCII.
func printable(key []byte) string {
	out := make([]byte, 0, 64)
	for _, c := range key[:min(len(key), 64)] {
		if c < 0x20 || c >= 0x7f {
			c = '?'
		}
		out = append(out, c)
	}
	return string(out)
}
