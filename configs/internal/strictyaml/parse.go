package strictyaml

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// File is a parsed file of one or more documents.
type File struct {
	name  string
	lines []string
	docs  []*Doc
}

// Docs are the documents that have content, in order.
func (f *File) Docs() []*Doc { return f.docs }

// Doc is one document of a file.
type Doc struct {
	file  *File
	body  ast.Node
	line  int
	place map[string]position // field path -> where it stands; filled by Decode
}

type position struct{ line, column int }

// Parse reads at most limit bytes and parses them. The error is of type Errors,
// but for a read that failed.
func Parse(name string, r io.Reader, limit int64) (*File, error) {
	text, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	f := &File{name: name}
	if int64(len(text)) > limit {
		return nil, Errors{f.errorAt(position{}, "", fmt.Sprintf("larger than %d bytes", limit))}
	}
	if !utf8.Valid(text) {
		return nil, Errors{f.errorAt(position{}, "", "not valid UTF-8")}
	}
	source := strings.ReplaceAll(string(text), "\r\n", "\n")
	f.lines = strings.Split(source, "\n")
	tokens, errs := f.tokenize(source)
	if errs != nil {
		return nil, errs
	}
	for _, part := range split(tokens) {
		body, e := f.parse(part)
		switch {
		case e != nil:
			errs = append(errs, e)
		case body != nil && body.Type() != ast.NullType:
			f.docs = append(f.docs, &Doc{file: f, body: body, line: positionOf(body).line, place: map[string]position{}})
		}
	}
	if errs != nil {
		return nil, errs
	}
	return f, nil
}

// tokenize finds what may not be in a file before the parser, which recurses,
// sees it.
func (f *File) tokenize(source string) (token.Tokens, Errors) {
	tokens := lexer.Tokenize(source)
	if t, reason := unreasonable(tokens); t != nil {
		return nil, Errors{f.errorAt(placeOf(t), "", reason)}
	}
	if e := f.refuseTokens(tokens); e != nil {
		return nil, Errors{e}
	}
	return tokens, nil
}

// split cuts the tokens into documents. The parser could do that, but drops
// everything after an empty document without a word (goccy/go-yaml v1.19.2:
// "---", "---", "a: b" is one empty document), and stops at the first error.
func split(tokens token.Tokens) []token.Tokens {
	var parts []token.Tokens
	var part token.Tokens
	for _, t := range tokens {
		switch t.Type {
		case token.DocumentHeaderType, token.DocumentEndType:
			parts, part = append(parts, part), nil
		case token.CommentType:
		default:
			part = append(part, t)
		}
	}
	return append(parts, part)
}

// parse answers the body of one document, nil when it is empty. A panic of the
// parser becomes an error about the file: the file is what caused it.
func (f *File) parse(tokens token.Tokens) (body ast.Node, e *Error) {
	if len(tokens) == 0 {
		return nil, nil
	}
	defer func() {
		if p := recover(); p != nil {
			body, e = nil, f.errorAt(placeOf(tokens[0]), "", "not understood as YAML")
		}
	}()
	tree, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		return nil, f.syntaxError(err)
	}
	if len(tree.Docs) != 1 {
		return nil, f.errorAt(placeOf(tokens[0]), "", "not understood as YAML")
	}
	return tree.Docs[0].Body, nil
}

func (f *File) refuseTokens(tokens token.Tokens) *Error {
	for _, t := range tokens {
		var what string
		switch t.Type {
		case token.AnchorType, token.AliasType:
			what = "anchors and aliases are"
		case token.MergeKeyType:
			what = "merge keys are"
		case token.TagType:
			what = "tags are"
		case token.DirectiveType:
			what = "directives are"
		default:
			continue
		}
		return f.errorAt(placeOf(t), "", what+" not allowed (quote the value if it is text)")
	}
	return nil
}

func (f *File) syntaxError(err error) *Error {
	var se yaml.Error
	if !errors.As(err, &se) || se.GetToken() == nil {
		return f.errorAt(position{}, "", "not understood as YAML")
	}
	return f.errorAt(placeOf(se.GetToken()), "", "syntax: "+printable(se.GetMessage(), 200))
}

func (f *File) errorAt(at position, field, reason string) *Error {
	e := &Error{File: f.name, Line: at.line, Column: at.column, Field: field, Reason: reason}
	if at.line > 0 {
		e.Excerpt = excerpt(f.lines, at.line, at.column)
	}
	return e
}

// positionOf answers where a node starts. A mapping's own token is the colon of
// its first entry, so the first key stands for it.
func positionOf(n ast.Node) position {
	switch v := n.(type) {
	case *ast.MappingNode:
		if len(v.Values) > 0 && !v.IsFlowStyle {
			return positionOf(v.Values[0])
		}
	case *ast.MappingValueNode:
		return positionOf(v.Key)
	}
	if t := n.GetToken(); t != nil {
		return placeOf(t)
	}
	return position{}
}

func placeOf(t *token.Token) position {
	if t.Position == nil {
		return position{}
	}
	return position{t.Position.Line, t.Position.Column}
}

// Line is where the document starts.
func (d *Doc) Line() int { return d.line }

// At answers an error about a field of the document. A field that is not in the
// file is placed at its nearest ancestor that is.
func (d *Doc) At(field, reason string) *Error {
	for path := field; ; {
		if at, ok := d.place[path]; ok {
			return d.file.errorAt(at, field, reason)
		}
		cut := strings.LastIndexAny(path, ".[")
		if cut < 0 {
			return d.file.errorAt(position{line: d.line}, field, reason)
		}
		path = path[:cut]
	}
}
