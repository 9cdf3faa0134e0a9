package cli

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxReason bounds --reason in bytes.
const maxReason = 512

// checkReason refuses what the audit trail would not take, before it is sent.
func checkReason(s string) error {
	if len(s) > maxReason || !utf8.ValidString(s) || strings.ContainsFunc(s, unicode.IsControl) {
		return usagef("--reason: want one line of at most %d bytes", maxReason)
	}
	return nil
}
