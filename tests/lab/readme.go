package lab

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"strings"

	"ocf-clusterip/tests/lan"
)

// READMESection returns a section of README.md. The working directory must be two folders below it, as that of a test in tests/lab is.
func READMESection(title string) (string, error) {
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		return "", err
	}
	_, body, found := strings.Cut(string(text), "\n## "+title+"\n")
	if !found {
		return "", fmt.Errorf("README.md has no section %q", title)
	}
	body, _, _ = strings.Cut(body, "\n## ")
	return body, nil
}

// CodeBlocks returns the indented blocks of a text in Markdown, as lines without the indent. A line that is continued is one.
func CodeBlocks(text string) [][]string {
	var blocks [][]string
	inCode := false
	for line := range strings.Lines(strings.ReplaceAll(text, "\\\n", "")) {
		code, isCode := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "    ")
		if isCode && !inCode {
			blocks = append(blocks, nil)
		}
		if inCode = isCode; isCode {
			last := len(blocks) - 1
			blocks[last] = append(blocks[last], code)
		}
	}
	return blocks
}

// Type has a shell of the host run a line in a folder, as an admin types it there. An error means that it could not be run, or did not end
// by itself.
func (h *Host) Type(ctx context.Context, folder, line string) (lan.Result, error) {
	argv, err := h.EnterCommand("env", "--chdir="+folder, "sh", "-c", line)
	if err != nil {
		return lan.Result{}, err
	}
	r := h.machine.Run(ctx, environment, argv...)
	return r, r.Err
}

// complaint matches warnings of tools.
var complaint = regexp.MustCompile(`(?i)deprecat|warning|error`)

// unavoidable is what pcs from 0.12.2 on writes whenever it is given options of a clone, in any form (pacemaker/examples/README.md);
// what pcs status writes where there is no systemd, as on the lab's hosts; and what apt writes where its output is no terminal.
var unavoidable = regexp.MustCompile(`(?m)^(Warning: (Meta attributes of .*clone are not validated|Unable to detect init system).*|` +
	`WARNING: apt does not have a stable CLI interface\..*)$`)

// Complains returns whether a tool has written a warning that another command would have avoided.
func Complains(r lan.Result) bool {
	return complaint.MatchString(unavoidable.ReplaceAllString(r.Stdout+r.Stderr, ""))
}
