// Package style is the width and colour of output for an operator.
package style

import "fmt"

// Style is how output looks.
type Style struct {
	Width  int // in columns
	Colour bool
}

// Colour is a parameter of SGR (ECMA-48 section 8.3.117).
type Colour int

// The colours. All have two digits, so that in a column of a table each painted cell has the same number of invisible characters.
const (
	Bold   Colour = 1
	Red    Colour = 31
	Green  Colour = 32
	Yellow Colour = 33
	Plain  Colour = 39
)

// Paint colours a text.
func (s Style) Paint(c Colour, text string) string {
	if !s.Colour {
		return text
	}
	return fmt.Sprintf("\x1b[%02dm%s\x1b[0m", c, text)
}
