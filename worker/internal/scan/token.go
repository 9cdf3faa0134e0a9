package scan

import (
	"encoding/binary"
	"math/bits"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/bulkhead-ai/bulkhead"
)

// at reports whether the next byte is c.
func (s *scanner) at(c byte) bool { return s.i < len(s.b) && s.b[s.i] == c }

// space skips the four bytes that JSON calls white space.
func (s *scanner) space() {
	for s.i < len(s.b) {
		switch s.b[s.i] {
		case ' ', '\t', '\n', '\r':
			s.i++
		default:
			return
		}
	}
}

// value reads any value; s.i is at its first byte.
func (s *scanner) value() *bulkhead.Error {
	if s.i >= len(s.b) {
		return errJSON(s.i, "it ends too early")
	}
	switch c := s.b[s.i]; {
	case c == '"':
		_, _, err := s.str()
		return err
	case c == '{':
		return s.object(false)
	case c == '[':
		return s.array(nil)
	case c == '-' || c-'0' <= 9:
		_, err := s.number()
		return err
	case c == 't':
		return s.literal("true")
	case c == 'f':
		return s.literal("false")
	case c == 'n':
		return s.literal("null")
	}
	return errJSON(s.i, "expected a value")
}

func (s *scanner) literal(word string) *bulkhead.Error {
	if len(s.b)-s.i < len(word) || string(s.b[s.i:s.i+len(word)]) != word {
		return errJSON(s.i, "expected a value")
	}
	s.i += len(word)
	return nil
}

// str reads a string; s.i is at its quote. It returns what is between the
// quotes, and whether that has escapes.
func (s *scanner) str() (raw []byte, esc bool, err *bulkhead.Error) {
	start := s.i + 1
	for i := start; ; {
		i = skipPlain(s.b, i)
		if i >= len(s.b) {
			return nil, false, errJSON(i, "a string does not end")
		}
		switch s.b[i] {
		case '"':
			s.i = i + 1
			return s.b[start:i], esc, nil
		case '\\':
			esc = true
			if i, err = s.escape(i); err != nil {
				return nil, false, err
			}
		default:
			return nil, false, errJSON(i, "a string holds a control character")
		}
	}
}

// text reads a string and unescapes it.
func (s *scanner) text() ([]byte, *bulkhead.Error) {
	raw, esc, err := s.str()
	if err == nil && esc {
		raw = unescape(raw)
	}
	return raw, err
}

const (
	ones  = 0x0101010101010101
	highs = 0x8080808080808080
)

// skipPlain returns the index of the first quote, backslash or control byte at
// or after i. It looks at eight bytes at a time: subtracting from a byte lane
// sets its high bit when the lane was smaller, and a wrong hit can only be above
// a true one, so the lowest hit is always true.
func skipPlain(b []byte, i int) int {
	for ; i+8 <= len(b); i += 8 {
		x := binary.LittleEndian.Uint64(b[i:])
		quote := x ^ ones*'"'
		slash := x ^ ones*'\\'
		hit := ((x-ones*0x20)&^x | (quote-ones)&^quote | (slash-ones)&^slash) & highs
		if hit != 0 {
			return i + bits.TrailingZeros64(hit)>>3
		}
	}
	for ; i < len(b); i++ {
		if c := b[i]; c == '"' || c == '\\' || c < 0x20 {
			return i
		}
	}
	return i
}

// escape checks one escape at i and returns the index after it. Half a
// surrogate pair is refused: parsers replace it by different things.
func (s *scanner) escape(i int) (int, *bulkhead.Error) {
	if i+1 >= len(s.b) {
		return i, errJSON(i, "a string does not end")
	}
	switch s.b[i+1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return i + 2, nil
	case 'u':
		r, ok := hex4(s.b, i+2)
		if !ok {
			return i, errJSON(i, "an escape is malformed")
		}
		if !utf16.IsSurrogate(r) {
			return i + 6, nil
		}
		if i+7 < len(s.b) && s.b[i+6] == '\\' && s.b[i+7] == 'u' {
			low, ok := hex4(s.b, i+8)
			if ok && utf16.DecodeRune(r, low) != utf8.RuneError {
				return i + 12, nil
			}
		}
		return i, errSurrogate(i)
	}
	return i, errJSON(i, "an escape is malformed")
}

func hex4(b []byte, i int) (rune, bool) {
	if i+4 > len(b) {
		return 0, false
	}
	var r rune
	for _, c := range b[i : i+4] {
		switch {
		case c-'0' <= 9:
			c -= '0'
		case c-'a' <= 5:
			c -= 'a' - 10
		case c-'A' <= 5:
			c -= 'A' - 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}

// unescape decodes a string that str has accepted.
func unescape(raw []byte) []byte {
	out := make([]byte, 0, len(raw))
	for i := 0; i < len(raw); i++ {
		if raw[i] != '\\' {
			out = append(out, raw[i])
			continue
		}
		i++
		switch raw[i] {
		case 'b':
			out = append(out, '\b')
		case 'f':
			out = append(out, '\f')
		case 'n':
			out = append(out, '\n')
		case 'r':
			out = append(out, '\r')
		case 't':
			out = append(out, '\t')
		case 'u':
			r, _ := hex4(raw, i+1)
			i += 4
			if utf16.IsSurrogate(r) {
				low, _ := hex4(raw, i+3)
				r = utf16.DecodeRune(r, low)
				i += 6
			}
			out = utf8.AppendRune(out, r)
		default:
			out = append(out, raw[i])
		}
	}
	return out
}

// number reads a number and returns its text.
func (s *scanner) number() ([]byte, *bulkhead.Error) {
	start := s.i
	if s.at('-') {
		s.i++
	}
	if s.at('0') {
		s.i++
	} else if !s.digits() {
		return nil, errJSON(start, "a number is malformed")
	}
	if s.at('.') {
		s.i++
		if !s.digits() {
			return nil, errJSON(start, "a number is malformed")
		}
	}
	exp := s.at('e') || s.at('E')
	if exp {
		s.i++
		if s.at('+') || s.at('-') {
			s.i++
		}
		if !s.digits() {
			return nil, errJSON(start, "a number is malformed")
		}
	}
	text := s.b[start:s.i]
	if len(text) > MaxNumber {
		return nil, errJSON(start, "a number is too long")
	}
	// A number beyond float64 is an error to some parsers and infinity to
	// others. Only an exponent or more than 300 digits can make one.
	if exp || len(text) > 300 {
		if _, err := strconv.ParseFloat(string(text), 64); err != nil {
			return nil, errJSON(start, "a number is out of range")
		}
	}
	return text, nil
}

// digits skips digits and reports whether there was one.
func (s *scanner) digits() bool {
	start := s.i
	for s.i < len(s.b) && s.b[s.i]-'0' <= 9 {
		s.i++
	}
	return s.i > start
}
