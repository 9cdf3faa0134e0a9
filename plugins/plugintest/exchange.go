package plugintest

import (
	"bytes"
	"context"
	"fmt"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/plugins/provider"
)

// recorded lets an adapter that answers itself make its own exchanges.
func recorded(t *testing.T, a provider.Adapter) []Exchange {
	if !a.Info().Local {
		return nil
	}
	var out []Exchange
	for _, e := range a.Info().Endpoints {
		for _, stream := range []bool{false, true} {
			if stream && e == provider.Embeddings {
				continue
			}
			c := Sample(e, stream)
			body, bound, err := respond(ctx(t), a, &c)
			if err != nil {
				t.Fatalf("%s: %v", e, err)
			}
			x := Exchange{Name: fmt.Sprintf("recorded %s stream=%v", strings.ReplaceAll(string(e), "/", " "), stream), Call: c, Reply: string(body)}
			x.Usage = &bulkhead.Usage{Input: bound}
			if e != provider.Embeddings {
				x.Usage.Output = bound // it echoes
			}
			out = append(out, x)
		}
	}
	return out
}

func respond(ctx context.Context, a provider.Adapter, c *provider.Call) (body []byte, bound int64, err error) {
	r, err := a.Request(ctx, c)
	if err != nil {
		return nil, 0, err
	}
	var out bytes.Buffer
	err = a.(provider.Answerer).Respond(ctx, c, r, func(status int, data []byte) error {
		if status != 200 {
			return fmt.Errorf("status %d: %s", status, data)
		}
		out.Write(data)
		return nil
	})
	return out.Bytes(), r.InputBound, err
}

func exchange(t *testing.T, a provider.Adapter, x Exchange, o Options) {
	if !x.Call.Stream {
		checkAnswer(t, a, x)
	} else {
		whole := checkStream(t, a, x, 1<<20)
		for _, batch := range []int{1, 2, 3} {
			if got := checkStream(t, a, x, batch); got != whole {
				t.Errorf("batches of %d events give another stream:\n%q\n%q", batch, got, whole)
			}
		}
		cutShort(t, a, x)
	}
	if o.UsageField != "" {
		hostileUsage(t, a, x, o.UsageField)
	}
}

func checkAnswer(t *testing.T, a provider.Adapter, x Exchange) {
	t.Helper()
	ans, err := a.Answer(ctx(t), &x.Call, 200, []byte(x.Reply))
	if err != nil || ans.Err != nil {
		t.Errorf("%s: answer: %+v, %v", x.Name, ans, err)
		return
	}
	if !reflect.DeepEqual(ans.Usage, x.Usage) || ans.Suspect {
		t.Errorf("%s: usage %+v (suspect %v), want %+v", x.Name, ans.Usage, ans.Suspect, x.Usage)
	}
}

// checkStream translates the reply in batches of so many events and returns what
// the client got, terminal events behind a mark.
func checkStream(t *testing.T, a provider.Adapter, x Exchange, batch int) string {
	t.Helper()
	s, err := a.Stream(ctx(t), &x.Call)
	if err != nil {
		t.Errorf("%s: stream: %v", x.Name, err)
		return ""
	}
	defer s.Close()
	var data, tail strings.Builder
	var last provider.Delta
	for rest := []byte(x.Reply); len(rest) > 0; {
		var events []byte
		for i := 0; i < batch && len(rest) > 0; i++ {
			var one []byte
			one, rest = provider.CutEvent(rest)
			events = append(events, one...)
		}
		d, err := s.Translate(events)
		if err != nil || d.Err != nil {
			t.Errorf("%s: translate: %+v, %v", x.Name, d.Err, err)
			return ""
		}
		if len(d.Data) > 0 && tail.Len() > 0 {
			t.Errorf("%s: events for the client after terminal ones: %q", x.Name, d.Data)
		}
		if d.Output < last.Output {
			t.Errorf("%s: output shrinks from %d to %d", x.Name, last.Output, d.Output)
		}
		data.Write(d.Data)
		tail.Write(d.Terminal)
		last = d
	}
	checkEnd(t, x, last, tail.String(), data.String())
	return data.String() + "|" + tail.String()
}

func checkEnd(t *testing.T, x Exchange, last provider.Delta, tail, data string) {
	t.Helper()
	if !last.Done || tail == "" {
		t.Errorf("%s: done %v, terminal %q", x.Name, last.Done, tail)
	}
	if !reflect.DeepEqual(last.Usage, x.Usage) || last.Suspect {
		t.Errorf("%s: usage %+v (suspect %v), want %+v", x.Name, last.Usage, last.Suspect, x.Usage)
	}
	if x.Usage != nil && last.Output < x.Usage.Output {
		t.Errorf("%s: %d tokens estimated, %d delivered", x.Name, last.Output, x.Usage.Output)
	}
	if x.Hides != "" && strings.Contains(data+tail, x.Hides) {
		t.Errorf("%s: %q is not hidden", x.Name, x.Hides)
	}
}

// cutShort ends a stream in its middle: nothing may be reported as done.
func cutShort(t *testing.T, a provider.Adapter, x Exchange) {
	s, err := a.Stream(ctx(t), &x.Call)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	first, _ := provider.CutEvent([]byte(x.Reply))
	if d, err := s.Translate(first); err != nil || d.Done {
		t.Errorf("after one event: done %v, %v", d.Done, err)
	}
}

// hostileUsage replaces a token count by what cannot be one.
func hostileUsage(t *testing.T, a provider.Adapter, x Exchange, field string) {
	count := regexp.MustCompile(`("` + field + `":)\d+`)
	if !count.MatchString(x.Reply) {
		return
	}
	for _, v := range []string{"-1", "1e18", "1.5", `"12"`, "1000000000000000000", "NaN", "{}", "true", "01"} {
		y := x
		y.Reply = count.ReplaceAllString(x.Reply, "${1}"+v)
		usage, suspect, failed := outcome(t, a, y)
		if usage != nil && !failed {
			t.Errorf("%s %s: usage %+v is believed", field, v, *usage)
		}
		if !suspect && !failed {
			t.Errorf("%s %s: not suspect", field, v)
		}
	}
}

func outcome(t *testing.T, a provider.Adapter, x Exchange) (u *bulkhead.Usage, suspect, failed bool) {
	if !x.Call.Stream {
		ans, err := a.Answer(ctx(t), &x.Call, 200, []byte(x.Reply))
		if err != nil {
			return nil, false, true
		}
		return ans.Usage, ans.Suspect, ans.Err != nil
	}
	s, err := a.Stream(ctx(t), &x.Call)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	d, err := s.Translate([]byte(x.Reply))
	return d.Usage, d.Suspect, err != nil || d.Err != nil
}
