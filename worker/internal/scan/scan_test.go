package scan_test

import (
	"errors"
	"strconv"
	"strings"
	"testing"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/plugins/provider"
	"github.com/bulkhead-ai/bulkhead/worker/internal/scan"
)

func refusal(t *testing.T, body string, ep provider.Endpoint) *bulkhead.Error {
	t.Helper()
	_, err := scan.Body([]byte(body), ep)
	if err == nil {
		return nil
	}
	var e *bulkhead.Error
	if !errors.As(err, &e) {
		t.Fatalf("error %v is not a *bulkhead.Error", err)
	}
	return e
}

func TestRefuses(t *testing.T) {
	deep := func(n int) string { return `{"a":` + strings.Repeat("[", n-1) + strings.Repeat("]", n-1) + `}` }
	many := func(n int) string {
		var b strings.Builder
		b.WriteString(`{"a":[`)
		for i := range n - 1 {
			if i > 0 {
				b.WriteByte(',')
			}
			b.WriteString(`{"k":0}`)
		}
		return b.String() + `]}`
	}
	wide := func(n int, last string) string {
		var b strings.Builder
		b.WriteString(`{"x":{`)
		for i := range n {
			b.WriteString(`"k` + strconv.Itoa(i) + `":0,`)
		}
		return b.String() + `"` + last + `":1}}`
	}
	for name, c := range map[string]struct{ body, code, param string }{
		"empty":                   {``, "invalid_json", ""},
		"space only":              {" \n", "invalid_json", ""},
		"array":                   {`[]`, "invalid_json", ""},
		"string":                  {`"x"`, "invalid_json", ""},
		"BOM":                     {"\ufeff{}", "invalid_json", ""},
		"cut":                     {`{"model":"m"`, "invalid_json", ""},
		"cut in key":              {`{"model`, "invalid_json", ""},
		"cut in escape":           {`{"a":"\`, "invalid_json", ""},
		"cut in unicode escape":   {`{"a":"\u00`, "invalid_json", ""},
		"trailing comma":          {`{"a":1,}`, "invalid_json", ""},
		"trailing comma in array": {`{"a":[1,]}`, "invalid_json", ""},
		"missing colon":           {`{"a" 1}`, "invalid_json", ""},
		"missing comma":           {`{"a":1 "b":2}`, "invalid_json", ""},
		"bare key":                {`{a:1}`, "invalid_json", ""},
		"single quotes":           {`{'a':1}`, "invalid_json", ""},
		"comment":                 {`{"a":1/*x*/}`, "invalid_json", ""},
		"NaN":                     {`{"a":NaN}`, "invalid_json", ""},
		"Infinity":                {`{"a":Infinity}`, "invalid_json", ""},
		"minus Infinity":          {`{"a":-Infinity}`, "invalid_json", ""},
		"huge exponent":           {`{"a":1e999}`, "invalid_json", ""},
		"huge digits":             {`{"a":` + strings.Repeat("9", 400) + `}`, "invalid_json", ""},
		"leading zero":            {`{"a":01}`, "invalid_json", ""},
		"plus":                    {`{"a":+1}`, "invalid_json", ""},
		"dot":                     {`{"a":1.}`, "invalid_json", ""},
		"hex":                     {`{"a":0x1}`, "invalid_json", ""},
		"word":                    {`{"a":truth}`, "invalid_json", ""},
		"long number":             {`{"a":0.` + strings.Repeat("1", 1024) + `}`, "invalid_json", ""},
		"control character":       {"{\"a\":\"x\ny\"}", "invalid_json", ""},
		"control character 1f":    {"{\"a\":\"0123456789\x1f0123456789\"}", "invalid_json", ""},
		"NUL":                     {"{\"a\":\"\x00\"}", "invalid_json", ""},
		"bad escape":              {`{"a":"\x41"}`, "invalid_json", ""},
		"no-break space":          {"{\u00a0\"a\":1}", "invalid_json", ""},
		"bad UTF-8":               {"{\"a\":\"\xff\"}", "invalid_utf8", ""},
		"overlong UTF-8":          {"{\"a\":\"\xc0\xaf\"}", "invalid_utf8", ""},
		"UTF-8 surrogate":         {"{\"a\":\"\xed\xa0\x80\"}", "invalid_utf8", ""},
		"lone high surrogate":     {`{"a":"\ud800"}`, "invalid_utf8", ""},
		"lone low surrogate":      {`{"a":"\udc00"}`, "invalid_utf8", ""},
		"two high surrogates":     {`{"a":"\ud800\ud800"}`, "invalid_utf8", ""},
		"surrogate in key":        {`{"\ud800":1}`, "invalid_utf8", ""},
		"trailing object":         {`{"a":1}{"a":2}`, "trailing_data", ""},
		"trailing garbage":        {`{} x`, "trailing_data", ""},
		"duplicate":               {`{"model":"a","model":"b"}`, "duplicate_key", "model"},
		"duplicate, escaped":      {`{"model":"a","\u006dodel":"b"}`, "duplicate_key", "model"},
		"duplicate max_tokens":    {`{"max_tokens":1,"max_tokens":2}`, "duplicate_key", "max_tokens"},
		"duplicate stream":        {`{"stream":true,"stream":false}`, "duplicate_key", "stream"},
		"duplicate unknown":       {`{"zz":1,"zz":1}`, "duplicate_key", "zz"},
		"duplicate below":         {`{"a":[{"b":{"c":1,"d":2,"c":3}}]}`, "duplicate_key", ""},
		"duplicate in options":    {`{"stream_options":{"include_usage":true,"include_usage":false}}`, "duplicate_key", ""},
		"duplicate among many":    {wide(5000, "k4711"), "duplicate_key", ""},
		"duplicate 8th and 9th":   {wide(8, "k7"), "duplicate_key", ""},
		"duplicate, 9 keys":       {wide(9, "k0"), "duplicate_key", ""},
		"upper case":              {`{"MODEL":"a"}`, "ambiguous_key", "MODEL"},
		"mixed case":              {`{"model":"a","Model":"b"}`, "ambiguous_key", "Model"},
		"long s":                  {`{"ſtream":true}`, "ambiguous_key", "??tream"},
		"escaped long s":          {`{"\u017ftream":true}`, "ambiguous_key", "??tream"},
		"Kelvin":                  {"{\"max_to\u212aens\":1}", "ambiguous_key", "max_to???ens"},
		"Turkish i":               {`{"servİce_tier":"auto"}`, "ambiguous_key", "serv??ce_tier"},
		"escaped known key":       {`{"\u006dodel":"a"}`, "ambiguous_key", "model"},
		"option in other case":    {`{"stream_options":{"Include_Usage":true}}`, "ambiguous_key", "Include_Usage"},
		"too deep":                {deep(65), "too_deep", ""},
		"far too deep":            {strings.Repeat(`{"a":`, 100_000), "too_deep", ""},
		"too many keys":           {many(scan.MaxKeys + 1), "too_many_keys", ""},
		"api_base":                {`{"api_base":"http://x"}`, "unknown_parameter", "api_base"},
		"API_BASE":                {`{"API_BASE":"http://x"}`, "unknown_parameter", "API_BASE"},
		"base_url":                {`{"base_url":"http://x"}`, "unknown_parameter", "base_url"},
		"custom_host":             {`{"custom_host":"http://x"}`, "unknown_parameter", "custom_host"},
		"api_key":                 {`{"api_key":"x"}`, "unknown_parameter", "api_key"},
		"escaped api_key":         {`{"api\u005fkey":"x"}`, "unknown_parameter", "api_key"},
		"model number":            {`{"model":1}`, "invalid_value", "model"},
		"model null":              {`{"model":null}`, "invalid_value", "model"},
		"model empty":             {`{"model":""}`, "invalid_value", "model"},
		"model space":             {`{"model":"a b"}`, "invalid_value", "model"},
		"model long":              {`{"model":"` + strings.Repeat("m", 129) + `"}`, "invalid_value", "model"},
		"stream string":           {`{"stream":"true"}`, "invalid_value", "stream"},
		"stream number":           {`{"stream":1}`, "invalid_value", "stream"},
		"stream object":           {`{"stream":{}}`, "invalid_value", "stream"},
		"broken stream":           {`{"stream":[}`, "invalid_json", ""},
		"include_usage":           {`{"stream_options":{"include_usage":1}}`, "invalid_value", "stream_options.include_usage"},
		"stream_options":          {`{"stream_options":true}`, "invalid_value", "stream_options"},
		"max_tokens -1":           {`{"max_tokens":-1}`, "invalid_value", "max_tokens"},
		"max_tokens 0":            {`{"max_tokens":0}`, "invalid_value", "max_tokens"},
		"max_tokens -0":           {`{"max_tokens":-0}`, "invalid_value", "max_tokens"},
		"max_tokens 1.0":          {`{"max_tokens":1.0}`, "invalid_value", "max_tokens"},
		"max_tokens 1e3":          {`{"max_tokens":1e3}`, "invalid_value", "max_tokens"},
		"max_tokens 2^31":         {`{"max_tokens":2147483648}`, "invalid_value", "max_tokens"},
		"max_tokens 2^63":         {`{"max_tokens":9223372036854775808}`, "invalid_value", "max_tokens"},
		"max_tokens 2^64+1":       {`{"max_tokens":18446744073709551617}`, "invalid_value", "max_tokens"},
		"max_tokens string":       {`{"max_tokens":"10"}`, "invalid_value", "max_tokens"},
		"max_tokens bool":         {`{"max_tokens":true}`, "invalid_value", "max_tokens"},
		"max_completion_tokens":   {`{"max_completion_tokens":0}`, "invalid_value", "max_completion_tokens"},
		"max_output_tokens":       {`{"max_output_tokens":0}`, "invalid_value", "max_output_tokens"},
		"n 0":                     {`{"n":0}`, "invalid_value", "n"},
		"n 129":                   {`{"n":129}`, "invalid_value", "n"},
		"n 10^6":                  {`{"n":1000000}`, "invalid_value", "n"},
		"best_of":                 {`{"best_of":129}`, "invalid_value", "best_of"},
		"service_tier":            {`{"service_tier":"priority"}`, "parameter_not_allowed", "service_tier"},
		"service_tier number":     {`{"service_tier":1}`, "invalid_value", "service_tier"},
	} {
		t.Run(name, func(t *testing.T) {
			e := refusal(t, c.body, provider.ChatCompletions)
			if e == nil {
				t.Fatalf("accepted %.80s", c.body)
			}
			if e.Code != c.code || e.Param != c.param {
				t.Errorf("got code %q param %q, want %q %q (%s)", e.Code, e.Param, c.code, c.param, e.Message)
			}
			want := bulkhead.InvalidRequest
			if c.code == "parameter_not_allowed" {
				want = bulkhead.PermissionDenied
			}
			if e.Kind != want {
				t.Errorf("got kind %d, want %d", e.Kind, want)
			}
		})
	}
	for name, body := range map[string]string{
		"depth 64": deep(64), "100k keys": many(scan.MaxKeys), "wide": wide(5000, "k5000"),
		"same key in siblings": `{"a":{"k":1},"b":{"k":1},"k":[{"k":1},{"k":2}]}`,
		"unknown case":         `{"foo":1,"Foo":2}`,
		"number of 1 KB":       `{"a":0.` + strings.Repeat("1", 1022) + `}`,
		"surrogate pair":       `{"a":"\ud83d\ude00"}`,
	} {
		if e := refusal(t, body, provider.ChatCompletions); e != nil {
			t.Errorf("%s: refused: %v", name, e)
		}
	}
}

func TestReads(t *testing.T) {
	base := func(body string) scan.Doc {
		return scan.Doc{N: 1, BestOf: 1, Prompts: 1, PromptBytes: int64(len(body))}
	}
	for _, c := range []struct {
		ep   provider.Endpoint
		body string
		want func(*scan.Doc)
	}{
		{provider.ChatCompletions, `{}`, func(*scan.Doc) {}},
		{provider.ChatCompletions, ` { "model" : "meta-llama/Llama-3.1-8B:free" } `, func(d *scan.Doc) { d.Model = "meta-llama/Llama-3.1-8B:free" }},
		{provider.ChatCompletions, `{"model":"a\u002fb","stream":true,"stream_options":{"x":[{}],"include_usage":true}}`,
			func(d *scan.Doc) { d.Model, d.Stream, d.HasStream, d.IncludeUsage = "a/b", true, true, true }},
		{provider.ChatCompletions, `{"stream":null,"max_tokens":null,"n":null,"service_tier":null,"stream_options":null}`, func(*scan.Doc) {}},
		{provider.ChatCompletions, `{"stream":false,"stream_options":{}}`, func(d *scan.Doc) { d.HasStream = true }},
		{provider.ChatCompletions, `{"max_tokens":10,"max_completion_tokens":30,"n":4}`,
			func(d *scan.Doc) { d.MaxOutput, d.HasMaxOutput, d.N = 30, true, 4 }},
		{provider.ChatCompletions, `{"max_completion_tokens":2147483647,"max_tokens":10}`,
			func(d *scan.Doc) { d.MaxOutput, d.HasMaxOutput = 2147483647, true }},
		{provider.ChatCompletions, `{"max_output_tokens":7}`, func(*scan.Doc) {}},
		{provider.Responses, `{"max_output_tokens":7,"max_tokens":9}`, func(d *scan.Doc) { d.MaxOutput, d.HasMaxOutput = 7, true }},
		{provider.Messages, `{"max_tokens":9,"service_tier":"standard_only"}`,
			func(d *scan.Doc) { d.MaxOutput, d.HasMaxOutput, d.ServiceTier = 9, true, "standard_only" }},
		{provider.Embeddings, `{"max_tokens":9,"input":["a","b"]}`, func(*scan.Doc) {}},
		{provider.Completions, `{"prompt":"x","max_tokens":5,"best_of":3}`, func(d *scan.Doc) { d.MaxOutput, d.HasMaxOutput, d.BestOf = 5, true, 3 }},
		{provider.Completions, `{"prompt":["x","y","z"]}`, func(d *scan.Doc) { d.Prompts = 3 }},
		{provider.Completions, `{"prompt":[1,2,3]}`, func(*scan.Doc) {}},
		{provider.Completions, `{"prompt":[[1,2],[3]]}`, func(d *scan.Doc) { d.Prompts = 2 }},
		{provider.Completions, `{"prompt":[1,"a",[3]]}`, func(d *scan.Doc) { d.Prompts = 3 }},
		{provider.Completions, `{"prompt":[]}`, func(*scan.Doc) {}},
		{provider.ChatCompletions, `{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"x"}}]}]}`,
			func(d *scan.Doc) { d.HasMedia = true }},
		{provider.Messages, `{"messages":[{"role":"user","content":[{"type":"im\u0061ge","source":{}}]}]}`, func(d *scan.Doc) { d.HasMedia = true }},
		{provider.Responses, `{"input":[{"type":"input_file","file_id":"f"}]}`, func(d *scan.Doc) { d.HasMedia = true }},
		{provider.Responses, `{"input":[{"type":"item_reference","id":"f"}]}`, func(d *scan.Doc) { d.HasReference = true }},
		{provider.Responses, `{"previous_response_id":"r","prompt":{"id":"p"}}`, func(d *scan.Doc) { d.HasReference = true }},
		{provider.Responses, `{"previous_response_id":null,"background":false}`, func(*scan.Doc) {}},
		{provider.ChatCompletions, `{"tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object","properties":{"file_id":{"type":"string"}}}}}]}`,
			func(d *scan.Doc) { d.PromptBytes += 1024 }},
		{provider.ChatCompletions, `{"tools":null}`, func(*scan.Doc) {}},
		{provider.Responses, `{"tools":[{"type":"web_search"}]}`, func(d *scan.Doc) { d.PromptBytes += 1024; d.HasHostedTools = true }},
		{provider.ChatCompletions, `{"web_search_options":{}}`, func(d *scan.Doc) { d.HasHostedTools = true }},
	} {
		got, err := scan.Body([]byte(c.body), c.ep)
		if err != nil {
			t.Errorf("%s: %v", c.body, err)
			continue
		}
		want := base(c.body)
		c.want(&want)
		got.Fields = nil
		if !equal(got, want) {
			t.Errorf("%s %s:\n got %+v\nwant %+v", c.ep, c.body, got, want)
		}
	}
	if e := refusal(t, `{"background":true}`, provider.Responses); e == nil || e.Code != "parameter_not_allowed" {
		t.Errorf("background response: got %v", e)
	}
}

func equal(a, b scan.Doc) bool {
	return a.Model == b.Model && a.Stream == b.Stream && a.HasStream == b.HasStream && a.IncludeUsage == b.IncludeUsage &&
		a.MaxOutput == b.MaxOutput && a.HasMaxOutput == b.HasMaxOutput && a.N == b.N && a.BestOf == b.BestOf &&
		a.Prompts == b.Prompts && a.PromptBytes == b.PromptBytes && a.HasMedia == b.HasMedia &&
		a.HasReference == b.HasReference && a.HasHostedTools == b.HasHostedTools && a.ServiceTier == b.ServiceTier
}

func TestFieldsAndOutputs(t *testing.T) {
	body := `{"a" : [1, {"b":2}] ,"\u0062":"x","prompt":["p","q"],"n":3,"best_of":2}`
	d, err := scan.Body([]byte(body), provider.Completions)
	if err != nil {
		t.Fatal(err)
	}
	want := []struct{ key, value string }{{"a", `[1, {"b":2}]`}, {"b", `"x"`}, {"prompt", `["p","q"]`}, {"n", "3"}, {"best_of", "2"}}
	if len(d.Fields) != len(want) {
		t.Fatalf("got %d fields, want %d", len(d.Fields), len(want))
	}
	for i, f := range d.Fields {
		if string(f.Key) != want[i].key || body[f.Start:f.End] != want[i].value {
			t.Errorf("field %d: got %q %q, want %q", i, f.Key, body[f.Start:f.End], want[i])
		}
	}
	if got := d.Outputs(provider.Completions); got != 6 {
		t.Errorf("outputs: got %d, want 6", got)
	}
	if got := d.Outputs(provider.Embeddings); got != 0 {
		t.Errorf("outputs of embeddings: got %d, want 0", got)
	}
}

func TestAllocations(t *testing.T) {
	body := chatBody(200)
	got := testing.AllocsPerRun(100, func() {
		if _, err := scan.Body(body, provider.ChatCompletions); err != nil {
			t.Fatal(err)
		}
	})
	if got > 3 {
		t.Errorf("%.0f allocations for a usual body, want at most 3", got)
	}
}

// chatBody is a request with n messages of a few hundred bytes.
func chatBody(n int) []byte {
	var b strings.Builder
	b.WriteString(`{"model":"fast","stream":true,"temperature":0.7,"max_tokens":512,"messages":[`)
	for i := range n {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(`{"role":"user","content":"` + strings.Repeat(`It was a dark and stormy night; the rain fell in torrents.\n`, 6) + `"}`)
	}
	b.WriteString(`]}`)
	return []byte(b.String())
}

func BenchmarkBody(b *testing.B) {
	for name, body := range map[string][]byte{
		"chat1KB":   chatBody(2),
		"chat75KB":  chatBody(200),
		"unicode":   []byte(`{"model":"m","input":"` + strings.Repeat("夜は嵐だった。", 3000) + `"}`),
		"numbers":   []byte(`{"model":"m","input":[` + strings.Repeat("12345,", 12000) + `1]}`),
		"structure": []byte(`{"model":"m","messages":[` + strings.Repeat(`{"role":"user","content":"hi"},`, 2500) + `{}]}`),
		"base64":    []byte(`{"model":"m","input":"` + strings.Repeat("QUJDREVGRw", 10000) + `"}`),
	} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := scan.Body(body, provider.ChatCompletions); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
