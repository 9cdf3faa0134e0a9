package openai

import "github.com/bulkhead-ai/bulkhead/plugins/provider"

// longToken is more bytes than the tokens of real text have on average.
const longToken = 16

// meter estimates, from above, the output tokens of a stream while it flows. A
// token has at least one byte, so the bytes delivered bound the tokens; and an
// honest provider stays within the ceiling it was told, so the ceiling does too.
// A provider that passes its ceiling is found by what every chunk (one token at
// least) and every longToken bytes must have cost.
type meter struct {
	ceiling int64 // of all choices together, 0 = none
	bytes   int64
	chunks  int64
}

func newMeter(c *provider.Call, choices int) meter {
	return meter{ceiling: ceiling(c) * int64(choices)}
}

func (m *meter) add(text int64) {
	if text > 0 {
		m.bytes += text
		m.chunks++
	}
}

func (m *meter) output() int64 {
	if m.ceiling == 0 {
		return m.bytes
	}
	return max(min(m.bytes, m.ceiling), m.chunks, m.bytes/longToken)
}
