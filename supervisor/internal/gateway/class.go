package gateway

// class is a set of byte classes; a byte may be in several.
type class uint8

const (
	classToken  class = 1 << iota // RFC 9110 tchar: methods and header names
	classValue                    // header values: visible ASCII, space, tab, 0x80-0xff; no other control byte
	classTarget                   // request target but '%': RFC 3986 without '#', plus [ ] which SDKs send in queries
	classHost                     // Host: names, addresses and ports
	classHex                      // hexadecimal digits
	classID                       // resource ids
	classTag                      // printable ASCII: tag values and forwarded header values
	classBase64                   // base64url without padding
)

// classes is a read-only table.
var classes = makeClasses()

func makeClasses() (t [256]class) {
	for c := range 256 {
		b := byte(c)
		alnum := b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' || b >= '0' && b <= '9'
		set := func(in bool, k class) {
			if in {
				t[c] |= k
			}
		}
		set(alnum || contains("!#$%&'*+-.^_`|~", b), classToken)
		set(b == '\t' || b >= ' ' && b != 0x7f, classValue)
		set(alnum || contains("-._~!$&'()*+,;=:@/?[]", b), classTarget)
		set(alnum || contains("-._:[]", b), classHost)
		set(b >= '0' && b <= '9' || b >= 'a' && b <= 'f' || b >= 'A' && b <= 'F', classHex)
		set(alnum || contains("-._:/", b), classID)
		set(b >= ' ' && b < 0x7f, classTag)
		set(alnum || contains("-_", b), classBase64)
	}
	return t
}

func contains(set string, b byte) bool {
	for i := range len(set) {
		if set[i] == b {
			return true
		}
	}
	return false
}

func is(b byte, k class) bool { return classes[b]&k != 0 }

func allIn[T string | []byte](s T, k class) bool {
	for i := range len(s) {
		if classes[s[i]]&k == 0 {
			return false
		}
	}
	return true
}
