package ocf

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// quotedRunes is how many characters of a value a message shows.
const quotedRunes = 60

// OneLine returns s as text that is safe in a log: valid UTF-8 on one line. Every run of line breaks, control characters and other
// invisible characters (Unicode's C, Zl and Zp) becomes a space, every invalid byte the replacement character.
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

// Quote returns a value for a message: in quotes, with unprintable characters escaped. A value of more than 60 characters is cut, with its
// length in bytes behind it.
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

// cut returns s with at most limit bytes. It cuts between characters, and marks the cut with an ellipsis.
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
