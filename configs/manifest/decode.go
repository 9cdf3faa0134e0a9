package manifest

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/bulkhead-ai/bulkhead"
	"github.com/bulkhead-ai/bulkhead/configs/internal/strictyaml"
)

// MaxBytes bounds one file of desired state.
const MaxBytes = 16 << 20

// Error is one thing wrong at one line of a file.
type Error = strictyaml.Error

// Errors is everything wrong with a file. Its Error method prints one
// FILE:LINE: FIELD: REASON a line; Explain adds the source lines.
type Errors = strictyaml.Errors

// Document is an object and where it was written.
type Document struct {
	Object
	doc *strictyaml.Doc
}

// At answers an error at the line of a field, e.g. for a Problem that was found
// later. Field is a path as in Problem.
func (d Document) At(field, reason string) *Error { return d.doc.At(field, reason) }

// Line is where the document starts.
func (d Document) Line() int { return d.doc.Line() }

// Decode reads the documents of one file. All of it is accepted or none: the
// error, of type Errors unless reading failed, lists everything wrong with each
// document on its own. What only a complete set can tell is left to Check.
func Decode(name string, r io.Reader) ([]Object, error) {
	docs, err := DecodeDocuments(name, r)
	if err != nil {
		return nil, err
	}
	objects := make([]Object, len(docs))
	for i, d := range docs {
		objects[i] = d.Object
	}
	return objects, nil
}

// DecodeDocuments is Decode that remembers the lines.
func DecodeDocuments(name string, r io.Reader) ([]Document, error) {
	file, err := strictyaml.Parse(name, r, MaxBytes)
	if err != nil {
		return nil, err
	}
	var docs []Document
	var errs Errors
	first := map[Ref]int{}
	for _, d := range file.Docs() {
		o, bad := decodeDocument(d)
		errs = append(errs, bad...)
		if bad != nil {
			continue
		}
		if line, ok := first[o.Ref]; ok {
			errs = append(errs, d.At("metadata.name", fmt.Sprintf("%s stands already at line %d", o.Ref, line)))
			continue
		}
		first[o.Ref] = d.Line()
		docs = append(docs, Document{Object: o, doc: d})
	}
	if errs != nil {
		return nil, errs
	}
	return docs, nil
}

type envelope struct {
	Kind     string         `yaml:"kind"`
	Metadata metadata       `yaml:"metadata"`
	Spec     strictyaml.Raw `yaml:"spec"`
}

type metadata struct {
	Name    string `yaml:"name"`
	Tenant  string `yaml:"tenant,omitempty"`
	Project string `yaml:"project,omitempty"`
}

func decodeDocument(d *strictyaml.Doc) (Object, Errors) {
	var env envelope
	errs := d.Decode(&env)
	o := Object{Ref: Ref{
		Kind:    Kind(env.Kind),
		Tenant:  bulkhead.TenantID(env.Metadata.Tenant),
		Project: env.Metadata.Project,
		Name:    env.Metadata.Name,
	}}
	spec := o.newSpec()
	if spec == nil {
		return o, append(errs, d.At("kind", unknownKind(env.Kind)))
	}
	errs = append(errs, d.Part("spec", spec)...)
	if b := o.PriceBookSpec; b != nil && b.Prices == nil {
		b.Prices = []Price{} // one form for "no prices": null and [] would differ once stored
	}
	if len(errs) > 0 {
		return o, errs
	}
	for _, p := range local(o) {
		errs = append(errs, d.At(p.Field, p.Reason))
	}
	if o.ProviderSpec != nil && o.ProviderSpec.Credential != nil {
		errs = append(errs, checkSource(d, o.ProviderSpec.Credential)...)
	}
	return o, errs
}

// checkSource looks at what only the file has: where the credential is read.
func checkSource(d *strictyaml.Doc, c *Credential) Errors {
	if (c.Env == "") == (c.File == "") {
		return Errors{d.At("spec.credential", "want exactly one of env and file")}
	}
	return nil
}

func unknownKind(kind string) string {
	if kind == "" {
		return "is missing; one of " + kindList()
	}
	return fmt.Sprintf("%.40q is not a kind of this build; one of %s", kind, kindList())
}

func kindList() string {
	var names []string
	for _, k := range Kinds() {
		names = append(names, string(k))
	}
	return strings.Join(names, ", ")
}

// AsErrors finds the Errors in err's chain.
func AsErrors(err error) (Errors, bool) {
	var es Errors
	ok := errors.As(err, &es)
	return es, ok
}
