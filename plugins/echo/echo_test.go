package echo

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/plugins/provider"
)

// ask returns what the adapter emits, event by event.
func ask(ctx context.Context, c *provider.Call) (status int, events []string, err error) {
	err = New().Respond(ctx, c, nil, func(s int, data []byte) error {
		status = s
		events = append(events, string(data))
		return nil
	})
	return status, events, err
}

func prompt(text string, stream bool) *provider.Call {
	return &provider.Call{
		Endpoint: provider.ChatCompletions, Model: "m", Stream: stream, Options: map[string]string{"directives": "true"},
		Body: []byte(`{"messages":[{"role":"user","content":` + provider.Quote(text) + `}]}`),
	}
}

func TestSwitches(t *testing.T) {
	for _, c := range []struct {
		text   string
		stream bool
		status int
		events int
		err    error
		holds  string
	}{
		{"a b c", false, 200, 1, nil, `"content":"a b c"`},
		{"a b c", true, 200, 7, nil, ""}, // role, three words, finish, usage, done
		{"a [[echo chunks=10]]", true, 200, 14, nil, ""},
		{"a b [[echo tokens=5]]", false, 200, 1, nil, `"a b a b a"`},
		{"[[echo tokens=2]]", false, 200, 1, nil, `"echo echo"`},
		{"a [[echo fail=503]]", true, 503, 1, nil, `"error"`},
		{"a b c d [[echo cut=2]]", true, 200, 3, ErrCut, ""},
		{"a b c d [[echo cut=2]]", false, 0, 0, ErrCut, ""},
		{"a [[echo unclosed", false, 200, 1, nil, "unclosed"},
	} {
		status, events, err := ask(t.Context(), prompt(c.text, c.stream))
		if status != c.status || len(events) != c.events || !errors.Is(err, c.err) || !strings.Contains(strings.Join(events, ""), c.holds) {
			t.Errorf("%q: status %d, %d events, %v: %q", c.text, status, len(events), err, events)
		}
	}
}

func TestBadSwitches(t *testing.T) {
	for _, text := range []string{"[[echo nonsense=1]]", "[[echo latency=-1s]]", "[[echo chunks=x]]", "[[echo fail=200]]", "[[echo tokens=99999999]]"} {
		if _, err := New().Request(t.Context(), prompt(text, false)); bulkhead.AsError(err).Kind != bulkhead.InvalidRequest {
			t.Errorf("%s: %v", text, err)
		}
	}
	c := prompt("a", false)
	c.Options = map[string]string{"latency": "soon"}
	if _, err := New().Request(t.Context(), c); err == nil || bulkhead.AsError(err).Kind == bulkhead.InvalidRequest {
		t.Errorf("a wrong option is the operator's: %v", err)
	}
}

func TestDirectivesOnlyWhereAllowed(t *testing.T) {
	c := prompt("a [[echo fail=503]]", false)
	c.Options = nil
	if status, events, err := ask(t.Context(), c); status != 200 || err != nil || !strings.Contains(events[0], "[[echo fail=503]]") {
		t.Errorf("%d, %v, %q", status, err, events)
	}
}

func TestTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		_, _, err := ask(t.Context(), prompt("a b c d [[echo latency=1s delay=10ms]]", true))
		if d := time.Since(begun); err != nil || d != time.Second+30*time.Millisecond {
			t.Errorf("%v, %v", d, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		begun = time.Now()
		_, events, err := ask(ctx, prompt("a b c d [[echo hang=2]]", true))
		if d := time.Since(begun); !errors.Is(err, context.DeadlineExceeded) || d != time.Minute || len(events) != 3 {
			t.Errorf("hang: %v, %v, %d events", d, err, len(events))
		}
	})
}

// The ceiling holds, usage is exact and the same request gets the same bytes.
func TestCeilings(t *testing.T) {
	for _, limit := range []int64{0, 1, 3, 4, 9} {
		for _, e := range []provider.Endpoint{provider.ChatCompletions, provider.Completions, provider.Responses} {
			c := &provider.Call{
				Endpoint: e, Model: "m", MaxOutput: limit,
				Body: []byte(`{"messages":[{"role":"user","content":[{"type":"text","text":"a b"},{"type":"text","text":"c  d"}]}],"prompt":"a b c  d","input":"a b c  d"}`),
			}
			_, one, err := ask(t.Context(), c)
			_, two, _ := ask(t.Context(), c)
			if err != nil || one[0] != two[0] || !json.Valid([]byte(one[0])) {
				t.Fatalf("%s: %v, %q, %q", e, err, one, two)
			}
			a, err := New().Answer(t.Context(), c, 200, []byte(one[0]))
			want := bulkhead.Usage{Input: 4, Output: 4}
			if limit > 0 {
				want.Output = min(limit, 4)
			}
			if err != nil || *a.Usage != want {
				t.Errorf("%s, ceiling %d: %+v, %v", e, limit, a.Usage, err)
			}
		}
	}
}

func TestPieces(t *testing.T) {
	for _, text := range []string{"", " ", "a", "  a  b\n", "é ö ü", "one two three four five"} {
		for chunks := range 9 {
			r := &reply{text: text, output: CountTokens(text), q: &request{switches: Switches{Chunks: chunks}}}
			p := r.pieces()
			if strings.Join(p, "") != text || chunks > 0 && len(p) != chunks {
				t.Errorf("%q in %d: %q", text, chunks, p)
			}
			var words int64
			for _, s := range p {
				words += CountTokens(s)
			}
			if words != r.output {
				t.Errorf("%q in %d: %d words, want %d", text, chunks, words, r.output)
			}
		}
	}
}

func TestEmbeddingForms(t *testing.T) {
	var vectors [2][]float32
	for i, format := range []string{"float", "base64"} {
		c := &provider.Call{Endpoint: provider.Embeddings, Model: "m", Body: []byte(`{"input":"x","dimensions":5,"encoding_format":"` + format + `"}`)}
		_, out, err := ask(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		var v struct {
			Data []struct {
				Embedding json.RawMessage
			}
		}
		if err := json.Unmarshal([]byte(out[0]), &v); err != nil {
			t.Fatal(err)
		}
		vectors[i] = decode(t, v.Data[0].Embedding)
	}
	for i := range 5 {
		if vectors[0][i] != vectors[1][i] {
			t.Errorf("floats %v, base64 %v", vectors[0], vectors[1])
		}
	}
}

func decode(t *testing.T, raw json.RawMessage) (out []float32) {
	t.Helper()
	s, ok := provider.String(raw)
	if !ok {
		if err := json.Unmarshal(raw, &out); err != nil {
			t.Fatal(err)
		}
		return out
	}
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	for ; len(b) > 0; b = b[4:] {
		out = append(out, math.Float32frombits(binary.LittleEndian.Uint32(b)))
	}
	return out
}
