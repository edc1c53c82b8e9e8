package pacemaker

import (
	"testing"
	"time"
)

func TestParseTime(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"10": 10 * time.Second, "10s": 10 * time.Second, "1 min": time.Minute, "500ms": time.Millisecond * 500, "2h": 2 * time.Hour, "0": 0,
		"PT10S": 10 * time.Second, "PT1H30M5S": 90*time.Minute + 5*time.Second, "PT90M": 90 * time.Minute,
	} {
		if got, ok := ParseTime(text); !ok || got != want {
			t.Errorf("%q: %s, %t", text, got, ok)
		}
	}
	for _, text := range []string{
		"", "s", "-1", "PT", "PT5", "PT5X", "PT5S1M", "PTS", "P5S", "1.5s", "99999999999", "8000000h", "PT8000000H",
	} {
		if got, ok := ParseTime(text); ok {
			t.Errorf("%q is taken for %s", text, got)
		}
	}
}

func FuzzParseTime(f *testing.F) {
	f.Add("10 min")
	f.Add("PT1H30M5S")
	f.Add("8000000h")
	f.Fuzz(func(t *testing.T, text string) {
		if got, ok := ParseTime(text); ok && got < 0 {
			t.Errorf("%q is taken for %s", text, got)
		}
	})
}
