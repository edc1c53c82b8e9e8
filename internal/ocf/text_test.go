package ocf

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func TestOneLine(t *testing.T) {
	tests := []struct{ name, in, want string }{
		{"plain text stays", "add 192.0.2.1/24 to eth0: file exists", "add 192.0.2.1/24 to eth0: file exists"},
		{"other scripts stay", "Schnittstelle für ＡＢ – gut", "Schnittstelle für ＡＢ – gut"},
		{"spaces inside stay", "a  b", "a  b"},
		{"line breaks fold", "a\r\nb\n\nc", "a b c"},
		{"control characters fold", "a\x00\x1b[31mb\x7f\u0085c", "a [31mb c"},
		{"Unicode's line breaks fold", "a\u2028b\u2029c", "a b c"},
		{"a text cannot be turned around", "a\u202eb", "a b"},
		{"wrong bytes are replaced", "a\xff\xc3(", "a\ufffd\ufffd("},
		{"the ends are trimmed", "\n\t a \n", "a"},
		{"nothing is nothing", "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := OneLine(tt.in); got != tt.want {
				t.Errorf("OneLine(%q) = %q, want %q", tt.in, got, tt.want)
			}
		})
	}
}

func TestQuote(t *testing.T) {
	tests := []struct{ name, in, want string }{
		{"a word", "igpm", `"igpm"`},
		{"nothing", "", `""`},
		{"quotes and line breaks", "a\"b\n", `"a\"b\n"`},
		{"wrong bytes", "\xff", `"\xff"`},
		{"sixty characters fit", strings.Repeat("x", 60), `"` + strings.Repeat("x", 60) + `"`},
		{"a thousand are cut", strings.Repeat("x", 1000), `"` + strings.Repeat("x", 60) + `"… (1000 bytes)`},
		{"the cut is between characters", strings.Repeat("ü", 61), `"` + strings.Repeat("ü", 60) + `"… (122 bytes)`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := Quote(tt.in); got != tt.want {
				t.Errorf("Quote(%q) = %s, want %s", tt.in, got, tt.want)
			}
		})
	}
}

func TestCut(t *testing.T) {
	tests := []struct {
		name, in string
		limit    int
		want     string
	}{
		{"what fits stays", "abcdef", 6, "abcdef"},
		{"what does not is marked", "abcdefg", 6, "abc…"},
		{"no half character is left", "aüüü", 6, "aü…"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := cut(tt.in, tt.limit)
			if got != tt.want || len(got) > tt.limit {
				t.Errorf("cut(%q, %d) = %q, want %q", tt.in, tt.limit, got, tt.want)
			}
		})
	}
}

func FuzzText(f *testing.F) {
	for _, s := range []string{"", "a\nb", "\xff\xfe", "\u2028", strings.Repeat("ü", 100), "\ufeffx"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		line := OneLine(s)
		checkOneLine(t, line)
		if again := OneLine(line); again != line {
			t.Errorf("OneLine twice: %q, then %q", line, again)
		}
		quoted := Quote(s)
		checkOneLine(t, quoted)
		if again := OneLine(quoted); again != quoted {
			t.Errorf("OneLine changes a quoted value: %q to %q", quoted, again)
		}
		if short := cut(line, 20); len(short) > 20 || !utf8.ValidString(short) {
			t.Errorf("cut(%q, 20) = %q", line, short)
		}
	})
}

// checkOneLine holds what every text must be that an operator may see.
func checkOneLine(t *testing.T, s string) {
	t.Helper()
	if !utf8.ValidString(s) {
		t.Errorf("%q is not valid UTF-8", s)
	}
	if i := strings.IndexFunc(s, func(r rune) bool { return unicode.IsControl(r) || r == '\u2028' || r == '\u2029' }); i >= 0 {
		t.Errorf("%q is not one line of text", s)
	}
}
