package pacemaker

import (
	"regexp"
	"strings"
	"time"
)

// ParseTime reads a time as Pacemaker does (crm_parse_interval_spec): a number with a unit, by default seconds, or a duration of ISO 8601.
func ParseTime(text string) (time.Duration, bool) {
	text = strings.TrimSpace(text)
	if iso := regexp.MustCompile(`^PT((\d+H)?(\d+M)?(\d+S)?)$`).FindStringSubmatch(text); iso != nil {
		duration, err := time.ParseDuration(strings.ToLower(iso[1]))
		return duration, err == nil
	}
	units := map[string]string{
		"": "s", "s": "s", "sec": "s", "ms": "ms", "msec": "ms", "us": "us", "usec": "us", "m": "m", "min": "m", "h": "h", "hr": "h",
	}
	rest := strings.TrimLeft(text, "0123456789")
	unit, known := units[strings.ToLower(strings.TrimSpace(rest))]
	duration, err := time.ParseDuration(strings.TrimSuffix(text, rest) + unit)
	return duration, known && err == nil
}
