package metadata

import (
	"fmt"
	"strings"

	"ocf-clusterip/internal/ocf"
)

// Text returns the meta-data for a reader at a terminal.
func Text(version string) string {
	var b strings.Builder
	title := agentName
	if version = ocf.OneLine(version); version != "" {
		title += " " + version
	}
	fmt.Fprintf(&b, "%s - %s\n\n%s\n\nPARAMETERS\n", title, agentShort, wrapAll(paragraphs(agentLong), "", textWidth))
	for _, p := range Parameters() {
		marks := ""
		if p.Required {
			marks = " (required)"
		}
		fmt.Fprintf(&b, "\n  %s%s - %s\n\n%s\n", p.Name, marks, p.Short, wrapAll(p.manual(), "      ", textWidth))
	}
	fmt.Fprint(&b, "\nACTIONS\n")
	for _, a := range Actions() {
		name := a.Name
		if a.Depth != "" {
			name += " (depth " + a.Depth + ")"
		}
		times := "timeout " + seconds(a.Timeout)
		if a.Interval != 0 {
			times += ", interval " + seconds(a.Interval)
		}
		fmt.Fprintf(&b, "\n  %s - %s\n%s\n", name, times, wrap(a.Meaning, "      ", textWidth))
	}
	return b.String()
}
