package strictyaml

import (
	"fmt"

	"github.com/goccy/go-yaml/token"
)

const (
	// maxDepth bounds flow collections and compact block collections
	// ("- - - x"), the two forms whose nesting costs one byte a level and would
	// exhaust the parser's stack. Real documents need five.
	maxDepth = 32
	// maxEntries bounds the keys of one mapping, and the empty entries of a list
	// in a row: the parser's time grows with the square of both (26 s and 76 s
	// for a megabyte).
	maxEntries = 1024
)

// bounds walks the tokens of a file and counts what the parser must not see.
type bounds struct {
	flow   int         // open flow collections
	row    int         // block collections opened on this line
	line   int         // of the last token
	empty  int         // list entries in a row without a value
	column map[int]int // keys of the open mapping at each column
	lowest int         // columns beyond this have no open mapping
}

// unreasonable answers the first token at which a file leaves the bounds, with
// the reason.
func unreasonable(tokens token.Tokens) (*token.Token, string) {
	b := bounds{column: map[int]int{}}
	for _, t := range tokens {
		if reason := b.add(t); reason != "" {
			return t, reason
		}
	}
	return nil, ""
}

func (b *bounds) add(t *token.Token) string {
	if t.Position.Line != b.line {
		b.row, b.line = 0, t.Position.Line
		b.close(t.Position.Column)
	}
	entry := t.Type == token.SequenceEntryType
	if !entry {
		b.empty = 0
	}
	switch t.Type {
	case token.DocumentHeaderType, token.DocumentEndType:
		b.close(0)
	case token.SequenceStartType, token.MappingStartType:
		b.flow++
	case token.SequenceEndType, token.MappingEndType:
		b.flow = max(b.flow-1, 0)
	case token.SequenceEntryType, token.MappingKeyType, token.MappingValueType:
		if b.flow == 0 {
			b.row++
		}
	}
	if entry {
		b.empty++
	}
	if t.Type == token.MappingValueType && b.flow == 0 && t.Prev != nil {
		b.column[t.Prev.Position.Column]++
		b.lowest = max(b.lowest, t.Prev.Position.Column)
	}
	return b.reason(t)
}

// close forgets the mappings that a line which starts further left has ended.
func (b *bounds) close(column int) {
	for ; b.lowest > column; b.lowest-- {
		delete(b.column, b.lowest)
	}
}

func (b *bounds) reason(t *token.Token) string {
	switch {
	case b.flow > maxDepth, b.row > maxDepth:
		return fmt.Sprintf("nested deeper than %d", maxDepth)
	case b.empty > maxEntries:
		return fmt.Sprintf("more than %d empty list entries", maxEntries)
	case t.Type == token.MappingValueType && t.Prev != nil && b.column[t.Prev.Position.Column] > maxEntries:
		return fmt.Sprintf("more than %d keys in one block", maxEntries)
	}
	return ""
}
