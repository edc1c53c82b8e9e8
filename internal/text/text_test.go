package text

import "testing"

func TestShellQuote(t *testing.T) {
	for value, want := range map[string]string{
		"tcp/80": "tcp/80", "tcp/80 tcp/443": "'tcp/80 tcp/443'", "": "''", "$(reboot)": "'$(reboot)'", "it's": `'it'\''s'`,
		"a\nb": "'a\nb'", "=ls": "'=ls'",
	} {
		if got := ShellQuote(value); got != want {
			t.Errorf("%s is quoted as %s, want %s", value, got, want)
		}
	}
}
