package terraform

import (
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"unicode"

	"github.com/bulkhead-ai/bulkhead/configs/manifest"
	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-go/tftypes"
)

// problem is an RFC 9457 answer of the API.
type problem struct {
	Status  int            `json:"status"`
	Title   string         `json:"title"`
	Detail  string         `json:"detail"`
	Code    string         `json:"code"`
	Errors  []problemField `json:"errors"`
	addr    string
	foreign bool // no problem document: something else answers at the address
}

type problemField struct {
	Location string `json:"location"`
	Message  string `json:"message"`
}

func problemOf(resp *http.Response, addr string, raw []byte) *problem {
	p := &problem{addr: addr}
	if json.Unmarshal(raw, p) != nil || p.Detail == "" && len(p.Errors) == 0 {
		p.Title, p.foreign = "unexpected answer "+resp.Status+"; is this the admin port?", true
	}
	p.Status = resp.StatusCode
	return p
}

// Error answers what the server said, each single error on a line of its own.
func (p *problem) Error() string {
	if p.Status == http.StatusUnauthorized && !p.foreign {
		return p.addr + " refused the admin token (see BULKHEAD_TOKEN, token and token_file)"
	}
	if p.Code == "reason_required" {
		return p.addr + ": say why with the provider's reason; it is kept in the audit trail"
	}
	said := p.Detail
	if said == "" {
		said = p.Title
	}
	lines := []string{p.addr + ": " + said}
	for _, e := range p.Errors {
		if e.Message != "" && !strings.Contains(p.Detail, e.Message) {
			lines = append(lines, strings.TrimPrefix(e.Location+": "+e.Message, ": "))
		}
	}
	return printable(strings.Join(lines, "\n"))
}

// printable keeps what a server says from steering a terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || unicode.IsPrint(r) {
			return r
		}
		return unicode.ReplacementChar
	}, s)
}

// statusOf is the status that a refusal came with, or 0.
func statusOf(err error) int {
	var p *problem
	if errors.As(err, &p) && !p.foreign {
		return p.Status
	}
	return 0
}

// codeOf is the code that a refusal came with, or "".
func codeOf(err error) string {
	var p *problem
	if errors.As(err, &p) {
		return p.Code
	}
	return ""
}

// diagnose says what was wrong, at the attributes that the server named. What it
// said of anything else, such as another object that a change would break, is an
// error of the whole resource.
func diagnose(summary string, err error, locate func(location string) (path.Path, bool)) diag.Diagnostics {
	var ds diag.Diagnostics
	var p *problem
	if errors.As(err, &p) && !p.foreign {
		for _, e := range p.Errors {
			if at, ok := locate(e.Location); ok {
				ds.AddAttributeError(at, summary, printable(e.Message))
			}
		}
		if len(ds) > 0 && len(ds) == len(p.Errors) {
			return ds
		}
	}
	ds.AddError(summary, err.Error())
	return ds
}

// locator finds the attribute of an object's field.
func locator(ref manifest.Ref, schema tftypes.Object) func(string) (path.Path, bool) {
	return func(location string) (path.Path, bool) {
		field, ok := strings.CutPrefix(location, ref.String()+": ")
		if !ok {
			if field, ok = inBody(location); !ok {
				return path.Empty(), false
			}
		}
		field = strings.TrimPrefix(strings.TrimPrefix(field, "spec."), "metadata.")
		if field == "credential" {
			field = credentialAttribute
		}
		return attributeAt(schema, field)
	}
}

// inBody answers the field of a location in the request, such as
// body.objects[0].tenant_spec.owner, which is where a value of a wrong form is.
func inBody(location string) (string, bool) {
	field, ok := strings.CutPrefix(location, "body.objects[0].")
	if before, after, found := strings.Cut(field, "_spec."); found && !strings.Contains(before, ".") {
		field = after
	}
	return field, ok
}

// attributeAt is the path of a field such as targets[0].model, as deep as there
// are attributes; false when there is none at all.
func attributeAt(in tftypes.Type, field string) (path.Path, bool) {
	at, found := path.Empty(), false
	for _, step := range strings.FieldsFunc(field, func(r rune) bool { return r == '.' || r == '[' || r == ']' }) {
		switch t := in.(type) {
		case tftypes.Object:
			next, ok := t.AttributeTypes[step]
			if !ok {
				return at, found
			}
			at, in = at.AtName(step), next
		case tftypes.Map:
			at, in = at.AtMapKey(step), t.ElementType
		case tftypes.List:
			i, err := strconv.Atoi(step)
			if err != nil {
				return at, found
			}
			at, in = at.AtListIndex(i), t.ElementType
		default:
			return at, found
		}
		found = true
	}
	return at, found
}
