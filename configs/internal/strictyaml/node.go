package strictyaml

import (
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"
)

func isMapping(n ast.Node) bool {
	switch n.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
		return true
	}
	return false
}

// entries are the key-value pairs of a mapping; the parser gives a mapping of
// one entry another node type in some places.
func entries(n ast.Node) []*ast.MappingValueNode {
	switch v := n.(type) {
	case *ast.MappingNode:
		return v.Values
	case *ast.MappingValueNode:
		return []*ast.MappingValueNode{v}
	}
	return nil
}

func keyText(kv *ast.MappingValueNode) (string, bool) {
	switch k := kv.Key.(type) {
	case *ast.StringNode:
		return k.Value, true
	case *ast.IntegerNode:
		return k.Token.Value, true
	}
	return "", false
}

// textOf is the text of a scalar as it was written. Numbers keep their digits,
// so "0.10" stays "0.10"; true, null, .inf and .nan are no text.
func textOf(n ast.Node) (string, bool) {
	switch v := n.(type) {
	case *ast.StringNode:
		return v.Value, true
	case *ast.LiteralNode:
		return v.Value.Value, true
	case *ast.IntegerNode:
		return v.Token.Value, true
	case *ast.FloatNode:
		return v.Token.Value, true
	}
	return "", false
}

func describe(n ast.Node) string {
	switch v := n.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
		return "a block of fields"
	case *ast.SequenceNode:
		return "a list"
	case *ast.BoolNode:
		return v.Token.Value
	case *ast.NullNode:
		return "nothing"
	}
	if t := n.GetToken(); t != nil {
		return `"` + printable(t.Value, 40) + `"`
	}
	return "something else"
}

// suggestion names the known field that was probably meant.
func suggestion(key string, fields map[string]int) string {
	names := make([]string, 0, len(fields))
	for name := range fields {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if len(key) <= 40 && distance(strings.ToLower(key), name) <= 2 {
			return "; did you mean " + name + "?"
		}
	}
	return ""
}

// distance is the number of single-letter edits between two short words.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}
