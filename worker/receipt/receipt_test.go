package receipt

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/bulkhead-ai/bulkhead"
)

func sample() Receipt {
	return Receipt{
		Tenant: "acme", Seq: 41, Epoch: 3, Request: "req_0123456789abcdef0123456789abcdef", Attempt: 1, Final: true,
		Outcome: bulkhead.Served, Status: 200, StartedAt: 1_700_000_000_000, SettledAt: 1_700_000_000_700, Day: "2023-11-14",
		Project: "scoring", Env: "prod", Account: "scorer", Key: "key-7", KeyOwner: "dev@bank.example", User: "ann", Feature: "triage",
		Endpoint: "chat/completions", Model: "fast", Provider: "main", UpstreamModel: "tiny",
		Usage: bulkhead.Usage{Input: 100, CacheRead: 5, Output: 20}, Cost: 546_875, Currency: "USD", PriceBook: "default@3",
		LatencyMS: 700, QueueMS: 2, FirstMS: 80, Stream: true, Clamped: 256, Salt: "00112233445566778899aabbccddeeff",
	}
}

// largest has every text at its longest, made of what takes most room.
func largest() Receipt {
	long := strings.Repeat
	return Receipt{
		Tenant: bulkhead.TenantID(long("a", 63)), Seq: math.MaxUint64, Epoch: math.MaxUint64, Request: "req_0123456789abcdef0123456789abcdef",
		Attempt: maxAttempt, Outcome: bulkhead.RefusedPolicy, Unknown: true, Code: long(`"`, maxCode), Status: 599,
		StartedAt: maxTime, SettledAt: maxTime, Day: "9999-12-31",
		Project: long(`"`, maxName), Env: long(`"`, maxName), Account: long(`"`, maxName), Key: bulkhead.KeyID(long(`"`, maxName)),
		KeyOwner: long(`"`, maxText), User: long(`\`, maxText), Feature: long(`\`, maxText),
		Endpoint: long(`"`, maxName), Model: long(`"`, maxModel), Provider: long(`"`, maxName), UpstreamModel: long(`"`, maxModel),
		Usage:     bulkhead.Usage{Input: bulkhead.MaxTokens, CacheRead: bulkhead.MaxTokens, CacheWrite: bulkhead.MaxTokens, Output: bulkhead.MaxTokens, Reasoning: bulkhead.MaxTokens},
		Estimated: true, Suspect: true, Unpriced: true, UpperBound: math.MaxInt64, Currency: long(`"`, maxCoin), PriceBook: long(`"`, maxBook),
		LatencyMS: math.MaxInt64, QueueMS: math.MaxInt64, FirstMS: math.MaxInt64, Stream: true, Clamped: math.MaxInt64,
		Salt: "00112233445566778899aabbccddeeff",
	}
}

// standard is what encoding/json writes without HTML escaping.
func standard(t testing.TB, r Receipt) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(r); err != nil {
		t.Fatal(err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

func TestEncodingIsThatOfTheStandardLibrary(t *testing.T) {
	texts := []string{"", "plain", `"\/`, "\x00\x01\b\f\n\r\t\x1f\x7f", "é€😀", "\u2028\u2029\u202a", "\xff", "a\xc3", "\xed\xa0\x80", "<&>", "\ufffd"}
	moneys := []bulkhead.Money{0, 1, 10, 1_000_000_000_000, 1_000_000_000_000 / 10, 12_345_678_901_234, math.MaxInt64, -1, math.MinInt64}
	for _, text := range texts {
		for _, money := range moneys {
			r := sample()
			r.User, r.Feature, r.Model, r.Cost, r.UpperBound = text, text, text, money, money
			got := r.AppendJSON(nil)
			valid := string([]rune(text)) // U+FFFD for each byte that is not UTF-8
			r.User, r.Feature, r.Model = valid, valid, valid
			if want := standard(t, r); !bytes.Equal(got, want) {
				t.Errorf("%q, %d:\n%s, want\n%s", text, money, got, want)
			}
		}
	}
	for _, r := range []Receipt{{}, sample(), largest()} {
		if got, want := r.AppendJSON(nil), standard(t, r); !bytes.Equal(got, want) {
			t.Errorf("%s, want\n%s", got, want)
		}
	}
}

func TestParseReturnsWhatWasEncoded(t *testing.T) {
	texts := []string{"", `a"b\c`, "\n\x01", "é€😀\u2028", "\ufffd"}
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 500 {
		r := sample()
		r.User, r.Code = texts[rnd.IntN(len(texts))], texts[rnd.IntN(len(texts))]
		r.Unknown, r.Final, r.Estimated, r.Unpriced = rnd.IntN(2) == 0, rnd.IntN(2) == 0, rnd.IntN(2) == 0, rnd.IntN(2) == 0
		r.UpperBound = bulkhead.Money(rnd.Int64N(3)) * bulkhead.Money(rnd.Int64N(math.MaxInt32))
		r.Cost, r.Seq, r.FirstMS, r.Clamped = bulkhead.Money(rnd.Int64()), rnd.Uint64(), rnd.Int64N(2), rnd.Int64N(2)
		got, err := Parse(r.AppendJSON(nil))
		if err != nil || got != r {
			t.Fatalf("got %+v, %v, want %+v", got, err, r)
		}
	}
}

func TestParseRefusesOtherSpellings(t *testing.T) {
	r := sample()
	good := string(r.AppendJSON(nil))
	for name, bad := range map[string]string{
		"empty":           "",
		"space":           strings.Replace(good, ":41,", ": 41,", 1),
		"trailing space":  good + " ",
		"trailing object": good + "{}",
		"cut":             good[:len(good)-1],
		"leading zero":    strings.Replace(good, ":41,", ":041,", 1),
		"plus":            strings.Replace(good, ":41,", ":+41,", 1),
		"float":           strings.Replace(good, ":41,", ":41.0,", 1),
		"exponent":        strings.Replace(good, ":41,", ":4e1,", 1),
		"minus zero":      strings.Replace(good, `"queue_ms":2`, `"queue_ms":-0`, 1),
		"order":           strings.Replace(good, `"seq":41,"epoch":3`, `"epoch":3,"seq":41`, 1),
		"unknown member":  strings.Replace(good, `{"tenant"`, `{"x":1,"tenant"`, 1),
		"repeated member": strings.Replace(good, `"seq":41`, `"seq":41,"seq":41`, 1),
		"empty option":    strings.Replace(good, `"user":"ann"`, `"user":""`, 1),
		"false flag":      strings.Replace(good, `"stream":true`, `"stream":false`, 1),
		"zero option":     strings.Replace(good, `"clamped":256`, `"clamped":0`, 1),
		"escaped letter":  strings.Replace(good, `"ann"`, `"\u0061nn"`, 1),
		"escaped slash":   strings.Replace(good, `chat/`, `chat\/`, 1),
		"bad escape":      strings.Replace(good, `"ann"`, `"\q"`, 1),
		"half escape":     strings.Replace(good, `"ann"`, `"\u00"`, 1),
		"surrogate":       strings.Replace(good, `"ann"`, `"\ud83d\ude00"`, 1),
		"bad UTF-8":       strings.Replace(good, `"ann"`, "\"\xff\"", 1),
		"raw control":     strings.Replace(good, `"ann"`, "\"\n\"", 1),
		"short money":     strings.Replace(good, `"0.000000546875"`, `"0.5"`, 1),
		"long money":      strings.Replace(good, `"0.000000546875"`, `"0.0000005468750"`, 1),
		"money as number": strings.Replace(good, `"0.000000546875"`, `0.000000546875`, 1),
		"money range":     strings.Replace(good, `"0.000000546875"`, `"9223372.036854775808"`, 1),
		"minus money":     strings.Replace(good, `"0.000000546875"`, `"-0.00"`, 1),
		"seq range":       strings.Replace(good, `:41,`, `:18446744073709551616,`, 1),
		"null":            strings.Replace(good, `"ann"`, `null`, 1),
	} {
		if bad == good {
			t.Fatalf("%s: the case changes nothing", name)
		}
		if r, err := Parse([]byte(bad)); !errors.Is(err, ErrNotCanonical) {
			t.Errorf("%s: %v, %+v", name, err, r)
		}
	}
}

func TestValidate(t *testing.T) {
	for _, r := range []Receipt{sample(), largest()} {
		if err := r.Validate(); err != nil {
			t.Fatal(err)
		}
		raw := r.AppendJSON(nil)
		if len(raw) > MaxReceipt {
			t.Fatalf("a valid receipt takes %d bytes", len(raw))
		}
		if got, err := Parse(raw); err != nil || got != r {
			t.Fatalf("parse: %v", err)
		}
	}
	for name, change := range map[string]func(*Receipt){
		"tenant":           func(r *Receipt) { r.Tenant = "Acme" },
		"seq":              func(r *Receipt) { r.Seq = 0 },
		"epoch":            func(r *Receipt) { r.Epoch = 0 },
		"request":          func(r *Receipt) { r.Request = "req_0123456789ABCDEF0123456789abcdef" },
		"attempt":          func(r *Receipt) { r.Attempt = -1 },
		"outcome":          func(r *Receipt) { r.Outcome = "free" },
		"status":           func(r *Receipt) { r.Status = 0 },
		"started":          func(r *Receipt) { r.StartedAt = -1 },
		"settled":          func(r *Receipt) { r.SettledAt = maxTime + 1 },
		"day":              func(r *Receipt) { r.Day = "2023-13-01" },
		"day form":         func(r *Receipt) { r.Day = "2023-1-001" },
		"project length":   func(r *Receipt) { r.Project = strings.Repeat("a", maxName+1) },
		"code length":      func(r *Receipt) { r.Code = strings.Repeat("a", maxCode+1) },
		"env control":      func(r *Receipt) { r.Env = "a\nb" },
		"user control":     func(r *Receipt) { r.User = "a\x1b[2J" },
		"user C1":          func(r *Receipt) { r.User = "a\u009b" },
		"user UTF-8":       func(r *Receipt) { r.User = "\xff" },
		"user length":      func(r *Receipt) { r.User = strings.Repeat("a", maxText+1) },
		"usage":            func(r *Receipt) { r.Usage.Output = -1 },
		"usage range":      func(r *Receipt) { r.Usage.Input = bulkhead.MaxTokens + 1 },
		"cost":             func(r *Receipt) { r.Cost = -1 },
		"cost of unknown":  func(r *Receipt) { r.Unknown = true },
		"cost of unpriced": func(r *Receipt) { r.Unpriced = true },
		"bound":            func(r *Receipt) { r.UpperBound = 1 },
		"bound sign":       func(r *Receipt) { r.Unknown, r.Cost, r.UpperBound = true, 0, -1 },
		"latency":          func(r *Receipt) { r.LatencyMS = -1 },
		"queue":            func(r *Receipt) { r.QueueMS = -1 },
		"first":            func(r *Receipt) { r.FirstMS = -1 },
		"clamped":          func(r *Receipt) { r.Clamped = -1 },
		"salt":             func(r *Receipt) { r.Salt = "" },
	} {
		r := sample()
		change(&r)
		if err := r.Validate(); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestClip(t *testing.T) {
	for _, text := range []string{"", "fine", "a\nb", "\xff\xfe", strings.Repeat("é", 300), strings.Repeat("\xff", 300), strings.Repeat("a", 255) + "😀", "x\u2028"} {
		r := sample()
		r.User, r.Feature, r.Model, r.UpstreamModel, r.KeyOwner, r.Code, r.Endpoint = text, text, text, text, text, text, text
		r.Clip()
		if err := r.Validate(); err != nil {
			t.Errorf("%.20q: %v", text, err)
		}
	}
	r := sample()
	r.Clip()
	if r != sample() {
		t.Error("a valid receipt was changed")
	}
}

func FuzzParse(f *testing.F) {
	for _, r := range []Receipt{{}, sample(), largest()} {
		f.Add(r.AppendJSON(nil))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := Parse(raw)
		if err != nil {
			return
		}
		if again := r.AppendJSON(nil); !bytes.Equal(again, raw) {
			t.Fatalf("%q becomes %q", raw, again)
		}
		if r.Validate() == nil && !bytes.Equal(standard(t, r), raw) {
			t.Fatalf("%q differs from the standard encoding", raw)
		}
	})
}

func FuzzClip(f *testing.F) {
	f.Add("a\xff\n")
	f.Fuzz(func(t *testing.T, text string) {
		r := sample()
		r.User, r.Model = text, text
		r.Clip()
		if err := r.Validate(); err != nil {
			t.Fatal(err)
		}
	})
}

func BenchmarkAppendJSON(b *testing.B) {
	r := sample()
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		buf = r.AppendJSON(buf[:0])
	}
}

func BenchmarkParse(b *testing.B) {
	r := sample()
	raw := r.AppendJSON(nil)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Parse(raw); err != nil {
			b.Fatal(err)
		}
	}
}
