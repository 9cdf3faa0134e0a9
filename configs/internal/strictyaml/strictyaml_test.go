package strictyaml

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/bulkhead-ai/bulkhead"
)

type sample struct {
	Name  string            `yaml:"name"`
	Count *int64            `yaml:"count"`
	Small int8              `yaml:"small"`
	On    bool              `yaml:"on"`
	Wait  time.Duration     `yaml:"wait"`
	Cost  *bulkhead.Money   `yaml:"cost"`
	Tags  []string          `yaml:"tags"`
	Opts  map[string]string `yaml:"opts"`
	Sub   *sample           `yaml:"sub"`
	Spec  Raw               `yaml:"spec"`
	Skip  string            `yaml:"-"`
}

func TestDecodeKeepsNumbersAsWritten(t *testing.T) {
	f, err := Parse("x.yaml", strings.NewReader("name: 1.10\ncount: 7\nwait: 90s\ncost: 0.000000546875\n"+
		"tags: [a, \"b\", 12]\nopts: {k: v}\nsub:\n  name: inner\n  sub:\n"), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	var s sample
	if errs := f.Docs()[0].Decode(&s); errs != nil {
		t.Fatal(errs)
	}
	if s.Name != "1.10" || *s.Count != 7 || s.Wait != 90*time.Second || *s.Cost != 546875 || len(s.Tags) != 3 || s.Tags[2] != "12" || s.Sub.Name != "inner" || s.Sub.Sub != nil {
		t.Fatalf("got %+v", s)
	}
}

func TestDecodeRefuses(t *testing.T) {
	tests := []struct{ name, in, want string }{
		{"unknown field", "name: a\nnamed: b\n", "x.yaml:2: named: unknown field; did you mean name?"},
		{"unknown far field", "zebra: 1\n", "x.yaml:1: zebra: unknown field"},
		{"hidden field", "Skip: 1\n", "x.yaml:1: Skip: unknown field"},
		{"double key", "name: a\nname: b\n", "x.yaml:2: name: given twice"},
		{"double map key", "opts:\n  a: b\n  a: c\n", "x.yaml:3: opts.a: given twice"},
		{"octal", "count: 010\n", `x.yaml:1: count: want a plain decimal number in range, got "010"`},
		{"hex", "count: 0x10\n", `x.yaml:1: count: want a plain decimal number in range, got "0x10"`},
		{"float", "count: 1.0\n", `x.yaml:1: count: want a whole number, got "1.0"`},
		{"exponent", "count: 1e3\n", `x.yaml:1: count: want a whole number, got "1e3"`},
		{"quoted number", "count: \"7\"\n", `x.yaml:1: count: want a whole number, got "7"`},
		{"huge", "count: 99999999999999999999\n", `x.yaml:1: count: want a whole number, got "99999999999999999999"`},
		{"too wide", "small: 300\n", `x.yaml:1: small: want a plain decimal number in range, got "300"`},
		{"bool as text", "name: true\n", "x.yaml:1: name: want text, got true (quote it if it is text)"},
		{"nan as text", "name: .nan\n", `x.yaml:1: name: want text, got ".nan" (quote it if it is text)`},
		{"text as bool", "on: yes\n", `x.yaml:1: on: want true or false, got "yes"`},
		{"duration", "wait: 5\n", `x.yaml:1: wait: want a duration such as "30s" or "5m", got "5"`},
		{"money", "cost: lots\n", `x.yaml:1: cost: amount "lots": want a decimal with at most 12 digits after the point`},
		{"empty scalar", "name:\n", "x.yaml:1: name: has no value; leave the field out or give it one"},
		{"empty money", "cost:\n", "x.yaml:1: cost: has no value; leave the field out or give it one"},
		{"scalar for block", "sub: 1\n", `x.yaml:1: sub: want a block of fields, got "1"`},
		{"block for list", "tags: {a: b}\n", "x.yaml:1: tags: want a list, got a block of fields"},
		{"list for text", "name: [a]\n", "x.yaml:1: name: want text, got a list (quote it if it is text)"},
		{"several", "name: [a]\ntags:\n  - true\n  - b\nzebra: 1\n",
			"x.yaml:1: name: want text, got a list (quote it if it is text)\nx.yaml:3: tags[0]: want text, got true (quote it if it is text)\nx.yaml:5: zebra: unknown field"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f, err := Parse("x.yaml", strings.NewReader(tt.in), 1<<20)
			if err != nil {
				t.Fatal(err)
			}
			errs := f.Docs()[0].Decode(&sample{})
			if errs.Error() != tt.want {
				t.Errorf("got  %s\nwant %s", errs, tt.want)
			}
		})
	}
}

// TestNoDocumentIsLost holds for what the YAML parser alone gets wrong: it drops
// everything after an empty document.
func TestNoDocumentIsLost(t *testing.T) {
	for _, in := range []string{
		"name: a\n---\nname: b\n",
		"---\n---\nname: a\n---\n\n---\nname: b\n---\n",
		"# c\n---\n# c\n---\nname: a\n--- # c\nname: b\n...\n# c\n",
		"--- {name: a}\n...\nname: b",
		"name: a\r\n---\r\nname: b\r\n",
	} {
		f, err := Parse("x.yaml", strings.NewReader(in), 1<<20)
		if err != nil {
			t.Errorf("%q: %v", in, err)
			continue
		}
		var names []string
		for _, d := range f.Docs() {
			var s sample
			if errs := d.Decode(&s); errs != nil {
				t.Errorf("%q: %v", in, errs)
			}
			names = append(names, s.Name)
		}
		if strings.Join(names, " ") != "a b" {
			t.Errorf("%q: got documents %q, want a and b", in, names)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	bomb := "a: &a [x,x]\nb: &b [*a,*a]\nc: [*b,*b]\n"
	tests := []struct{ name, in, want string }{
		{"anchor bomb", bomb, "x.yaml:1: anchors and aliases are not allowed"},
		{"alias", "name: *x\n", "anchors and aliases are not allowed"},
		{"merge key", "sub:\n  <<: {a: b}\n", "x.yaml:2: merge keys are not allowed"},
		{"tag", "name: !!binary aGk=\n", "x.yaml:1: tags are not allowed"},
		{"directive", "%YAML 1.1\n---\nname: a\n", "directives are not allowed"},
		{"flow depth", "name: " + strings.Repeat("[", 100000), "nested deeper than 32"},
		{"map depth", "name: " + strings.Repeat("{a: ", 100000), "nested deeper than 32"},
		{"entry depth", strings.Repeat("- ", 100000) + "a", "nested deeper than 32"},
		{"key depth", strings.Repeat("? ", 100000) + "a", "nested deeper than 32"},
		{"keys", strings.Repeat("k: v\n", 2000), "x.yaml:1025: more than 1024 keys in one block"},
		{"empty entries", strings.Repeat("-\n", 2000), "x.yaml:1025: more than 1024 empty list entries"},
		{"size", "name: " + strings.Repeat("x", 1<<20), "larger than 1048576 bytes"},
		{"utf8", "name: \xff\n", "not valid UTF-8"},
		{"syntax", "name: [a\n", "x.yaml:1: syntax: "},
		{"tab", "sub:\n\tname: a\n", "x.yaml:2: syntax: "},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Parse("x.yaml", strings.NewReader(tt.in), 1<<20)
			var errs Errors
			if !errors.As(err, &errs) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got  %v\nwant %s", err, tt.want)
			}
		})
	}
}

// TestLongFilesAreFine is the control of the bounds: length alone is no reason.
func TestLongFilesAreFine(t *testing.T) {
	in := "tags:\n" + strings.Repeat("  - a\n", 5000) + "sub:\n  tags:\n" + strings.Repeat("  - b\n", 5000)
	in = strings.Repeat("name: a\n---\n", 2000) + in
	f, err := Parse("x.yaml", strings.NewReader(in), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	docs := f.Docs()
	var s sample
	if errs := docs[len(docs)-1].Decode(&s); errs != nil || len(docs) != 2001 || len(s.Tags) != 5000 || len(s.Sub.Tags) != 5000 {
		t.Errorf("got %d documents, %d tags, %v", len(docs), len(s.Tags), errs)
	}
}

func TestExplainShowsTheLine(t *testing.T) {
	f, err := Parse("x.yaml", strings.NewReader("name: a\n\nnamed: b\n"), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	got := f.Docs()[0].Decode(&sample{}).Explain()
	want := "x.yaml:3: named: unknown field; did you mean name?\n     2 | \n>    3 | named: b\n         ^\n"
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestAtFallsBackToTheNearestAncestor(t *testing.T) {
	f, err := Parse("x.yaml", strings.NewReader("---\n# one\n---\nname: a\nsub:\n  name: b\n"), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	if len(f.Docs()) != 1 {
		t.Fatalf("got %d documents, want 1: a comment is none", len(f.Docs()))
	}
	d := f.Docs()[0]
	d.Decode(&sample{})
	for field, line := range map[string]int{"sub.name": 6, "sub.count": 5, "tags[0]": 4, "name": 4} {
		if got := d.At(field, "bad").Line; got != line {
			t.Errorf("%s: got line %d, want %d", field, got, line)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("name: a\nsub: {name: b}\n---\ntags: [a]\n")
	f.Add("a: &a [x]\nb: *a\n")
	f.Add("? - a\n: - b\n")
	f.Add("opts: |\n  x\n y")
	f.Fuzz(func(t *testing.T, in string) {
		file, err := Parse("x.yaml", strings.NewReader(in), 1<<16)
		if err != nil {
			var errs Errors
			if !errors.As(err, &errs) || len(errs) == 0 {
				t.Fatalf("error without a place: %v", err)
			}
			return
		}
		for _, d := range file.Docs() {
			for _, e := range d.Decode(&sample{}) {
				if e.Reason == "" || e.Line < 0 || strings.ContainsAny(e.Error(), "\n\x1b") {
					t.Fatalf("bad error: %q", e.Error())
				}
			}
		}
	})
}
