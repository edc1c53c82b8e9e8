package ocf

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// writes keeps every call of Write apart.
type writes []string

func (w *writes) Write(p []byte) (int, error) {
	*w = append(*w, string(p))
	return len(p), nil
}

func TestLoggerWritesEachLineAtOnce(t *testing.T) {
	var got writes
	log := NewLogger(&got, true)
	log.Debugf("reading %d", 1)
	log.Infof("added %s", "192.0.2.1/24")
	log.Warningf("two\nlines\r\nand a bell\x07")
	log.Errorf("100%% wrong: \xff")
	want := writes{"DEBUG: reading 1\n", "INFO: added 192.0.2.1/24\n", "WARNING: two lines and a bell\n", "ERROR: 100% wrong: \ufffd\n"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("writes (-want +got):\n%s", diff)
	}
}

func TestLoggerIsSilentAboutDetailsWithoutDebug(t *testing.T) {
	var got bytes.Buffer
	NewLogger(&got, false).Debugf("x")
	if got.Len() != 0 {
		t.Errorf("wrote %q", got.String())
	}
}

func TestLoggerCutsLongLines(t *testing.T) {
	var got bytes.Buffer
	NewLogger(&got, false).Infof("%s", strings.Repeat("ü", 5000))
	checkOneLine(t, strings.TrimSuffix(got.String(), "\n"))
	if got.Len() > 4096 || !strings.HasSuffix(got.String(), "…\n") {
		t.Errorf("line of %d bytes ends in %q", got.Len(), got.String()[got.Len()-10:])
	}
}

func TestExitReason(t *testing.T) {
	tests := []struct {
		name   string
		prefix string
		err    error
		want   string
	}{
		{"no error says nothing", "p:", nil, ""},
		{"an error is one line", "ocf-exit-reason:", errors.New("no nf_tables"), "ocf-exit-reason:no nf_tables\n"},
		{"another prefix is kept as it is", "why: ", errors.New("x"), "why: x\n"},
		{
			"joined errors stand beside each other", "p:",
			errors.Join(errors.New("a"), fmt.Errorf("b: %w", errors.Join(errors.New("c"), errors.New("d")))), "p:a; b: c; d\n",
		},
		{"what two errors say is said once", "p:", errors.Join(errors.New("a"), errors.New("b"), errors.New("a")), "p:a; b\n"},
		{"control characters and wrong bytes", "p:", errors.New("a\x00b\xff\r\n\nc"), "p:a b\ufffd; c\n"},
		{"an error without a text still says something", "p:", Errorf(ErrPerm, ""), "p:insufficient privileges\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got writes
			ExitReason(&got, tt.prefix, tt.err)
			var want writes
			if tt.want != "" {
				want = writes{tt.want}
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("writes (-want +got):\n%s", diff)
			}
		})
	}
}

func TestExitReasonIsCutBetweenCharacters(t *testing.T) {
	var got bytes.Buffer
	ExitReason(&got, "p:", errors.New(strings.Repeat("ü", 1000)))
	line := strings.TrimSuffix(got.String(), "\n")
	checkOneLine(t, line)
	if len(line) > len("p:")+1700 || !strings.HasSuffix(line, "ü…") {
		t.Errorf("%d bytes: %q", len(line), line)
	}
}
