// Package text formats text for people and shells.
package text

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// ShellQuote returns a word for use in a command, in quotes unless it needs none in any shell, zsh included.
func ShellQuote(value string) string {
	const harmless = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./:,"
	if value != "" && strings.Trim(value, harmless) == "" {
		return value
	}
	return "'" + strings.ReplaceAll(value, "'", `'\''`) + "'"
}

// Wrap breaks a paragraph into lines of at most width characters, each with the indent in front. A longer word has a line of its own.
func Wrap(paragraph, indent string, width int) string {
	var b strings.Builder
	column := 0
	for word := range strings.FieldsSeq(paragraph) {
		length := utf8.RuneCountInString(word)
		switch {
		case column == 0:
			b.WriteString(indent)
			column = len(indent)
		case column+1+length > width:
			b.WriteString("\n" + indent)
			column = len(indent)
		default:
			b.WriteByte(' ')
			column++
		}
		b.WriteString(word)
		column += length
	}
	return b.String()
}

// Join joins the texts of a list.
func Join[T any](list []T, separator string) string {
	texts := make([]string, len(list))
	for i, one := range list {
		texts[i] = fmt.Sprint(one)
	}
	return strings.Join(texts, separator)
}
