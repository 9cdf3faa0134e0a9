package provider

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestTokens(t *testing.T) {
	for in, want := range map[string]int64{
		"0": 0, "7": 7, "1099511627776": 1 << 40,
		"": -1, "-1": -1, "+1": -1, "01": -1, "1.0": -1, "1e3": -1, `"5"`: -1, "1099511627777": -1, "99999999999999999999": -1, "null": -1, "NaN": -1,
	} {
		if n, ok := Tokens([]byte(in)); ok != (want >= 0) || ok && n != want {
			t.Errorf("%q: %d, %v", in, n, ok)
		}
	}
}

func TestEachMember(t *testing.T) {
	in := ` { "a" : [1,{"b":"]}"}] , "mod\u0065l":"x\"y\\" ,"n":null,"u":{"v":-1.5e3}}`
	var got []string
	if err := EachMember([]byte(in), func(key []byte, start, end int) bool {
		got = append(got, string(key)+"="+in[start:end])
		return true
	}); err != nil {
		t.Fatal(err)
	}
	want := []string{`a=[1,{"b":"]}"}]`, `model="x\"y\\"`, "n=null", `u={"v":-1.5e3}`}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	for _, bad := range []string{"", "[]", "{", `{"a"`, `{"a":`, `{"a":1`, `{"a":1,`, `{"a":1 "b":2}`, `{"a":"x}`, `{a:1}`, `{"a":[1}`, `{,}`, `{"a":}`, `{"a":1,}`} {
		if EachMember([]byte(bad), func([]byte, int, int) bool { return true }) == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}

// Whatever encoding/json accepts is followed, and nothing panics.
func FuzzEachMember(f *testing.F) {
	f.Add([]byte(`{"a":[1,{"b":"]}"}],"mod\u0065l":"x\"y\\","n":null}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		got := map[string]string{}
		err := EachMember(in, func(key []byte, start, end int) bool {
			got[string(key)] = string(in[start:end])
			return true
		})
		TextBytes(in, "id")
		var want map[string]json.RawMessage
		if !utf8.Valid(in) || json.Unmarshal(in, &want) != nil || want == nil { // the scanner refuses bad UTF-8 before
			return
		}
		if err != nil || len(got) != len(want) {
			t.Fatalf("%q: %v, %v; want %v", in, got, err, want)
		}
		for k, v := range want {
			if got[k] != strings.TrimSpace(string(v)) {
				t.Fatalf("%q: %s is %q, want %q", in, k, got[k], v)
			}
		}
	})
}

func TestTextBytes(t *testing.T) {
	for in, want := range map[string]int64{
		`"abc"`: 3, `{"content":"abc","role":"assistant"}`: 3, `[{"x":["a",1,null,"bc"]}]`: 3, `null`: 0, `""`: 0, `"\n"`: 2,
	} {
		if n := TextBytes([]byte(in), "role"); n != want {
			t.Errorf("%s: %d, want %d", in, n, want)
		}
	}
	if n := TextBytes([]byte(strings.Repeat("[", 100) + strings.Repeat("]", 100))); n == 0 {
		t.Error("too deep a value counts nothing")
	}
}

func TestSplice(t *testing.T) {
	body := []byte(` {"model":"a","x":1}`)
	edits := []Edit{{Start: 10, End: 13, Text: Quote(`b"c`)}, InsertMember(body, "n", "2")}
	if got := string(Splice(body, edits)); got != ` {"n":2,"model":"b\"c","x":1}` {
		t.Error(got)
	}
	empty := []byte(`{ }`)
	if got := string(Splice(empty, []Edit{InsertMember(empty, "n", "2")})); got != `{"n":2 }` {
		t.Error(got)
	}
}
