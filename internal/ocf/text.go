package ocf

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// quotedRunes is how much of a value a message shows.
const quotedRunes = 60

// OneLine returns s as text that is safe in a log: valid UTF-8 on one line. Every run of line breaks, control characters and
// other characters without a picture (Unicode's C, Zl and Zp) becomes a space, every wrong byte the replacement character.
func OneLine(s string) string {
	var b strings.Builder
	folded := false
	for _, r := range s { // ranging over a string turns a wrong byte into utf8.RuneError
		if unicode.IsGraphic(r) {
			b.WriteRune(r)
			folded = false
			continue
		}
		if !folded {
			b.WriteByte(' ')
		}
		folded = true
	}
	return strings.TrimSpace(b.String())
}

// Quote returns a value as messages show it: in quotes, with everything unprintable escaped, and cut after 60 characters with
// the full length in bytes behind it.
func Quote(value string) string {
	runes := 0
	for i := range value {
		if runes == quotedRunes {
			return strconv.Quote(value[:i]) + "… (" + strconv.Itoa(len(value)) + " bytes)"
		}
		runes++
	}
	return strconv.Quote(value)
}

// ShellQuote writes a word as shells read it, zsh too: in quotes unless it is harmless.
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

// cut returns s with at most limit bytes; what is cut off ends at a rune's boundary and is marked by an ellipsis.
func cut(s string, limit int) string {
	const mark = "…"
	if len(s) <= limit {
		return s
	}
	end := limit - len(mark)
	for end > 0 && !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end] + mark
}
