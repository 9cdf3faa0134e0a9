package echo

import (
	"encoding/base64"
	"encoding/binary"
	"hash/fnv"
	"math"
	"strconv"

	"github.com/bulkhead-ai/bulkhead/plugins/provider"
)

// defaultDimensions is the length of a vector where the request names none.
const defaultDimensions = 64

// embeddings is the answer of embeddings: unit vectors that depend on the text
// alone, as numbers or, as SDKs ask by default, as base64 of little-endian
// float32.
func embeddings(c *provider.Call, q *request) []byte {
	n := defaultDimensions
	if q.Dimensions != nil {
		n = *q.Dimensions
	}
	out := []byte(`{"object":"list","data":[`)
	for i, text := range q.inputs {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(out, `{"object":"embedding","index":`+strconv.Itoa(i)+`,"embedding":`...)
		out = appendVector(out, vector(text, n), q.EncodingFormat == "base64")
		out = append(out, '}')
	}
	tokens := itoa(q.promptTokens)
	return append(out, `],"model":`+provider.Quote(c.Model)+`,"usage":{"prompt_tokens":`+tokens+`,"total_tokens":`+tokens+`}}`...)
}

func vector(text string, n int) []float32 {
	h := fnv.New64a()
	h.Write([]byte(text))
	state := h.Sum64()
	v := make([]float64, n)
	var sum float64
	for i := range v {
		state += 0x9e3779b97f4a7c15 // splitmix64
		z := (state ^ state>>30) * 0xbf58476d1ce4e5b9
		z = (z ^ z>>27) * 0x94d049bb133111eb
		v[i] = float64((z^z>>31)>>11)/(1<<52) - 1
		sum += v[i] * v[i]
	}
	out := make([]float32, n)
	for i := range v {
		out[i] = float32(v[i] / math.Sqrt(sum))
	}
	return out
}

func appendVector(out []byte, v []float32, encoded bool) []byte {
	if encoded {
		raw := make([]byte, 0, 4*len(v))
		for _, f := range v {
			raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(f))
		}
		out = append(out, '"')
		out = base64.StdEncoding.AppendEncode(out, raw)
		return append(out, '"')
	}
	out = append(out, '[')
	for i, f := range v {
		if i > 0 {
			out = append(out, ',')
		}
		out = strconv.AppendFloat(out, float64(f), 'g', -1, 32)
	}
	return append(out, ']')
}
