package doctor

import (
	"fmt"
	"slices"
	"strings"
)

// A section of corosync.conf. If a key occurs twice, the last value counts, as for Corosync itself.
type section struct {
	values   map[string]string
	sections map[string][]*section
}

func newSection() *section { return &section{map[string]string{}, map[string][]*section{}} }

// parseCorosync reads corosync.conf (corosync.conf(5), exec/coroparse.c): sections in braces, and in them "key: value", on a line each. It
// accepts any key.
func parseCorosync(text string) (*section, error) {
	root := newSection()
	open := []*section{root}
	var names []string
	number := 0
	for line := range strings.Lines(text) {
		number++
		line = strings.TrimSpace(line)
		here := open[len(open)-1]
		fault := func(what string) error { return fmt.Errorf("line %d: %q %s", number, line, what) }
		key, value, isPair := strings.Cut(line, ":")
		switch {
		case line == "" || strings.HasPrefix(line, "#"):
		case line == "}" && len(open) == 1:
			return nil, fault("ends no section")
		case line == "}":
			open, names = open[:len(open)-1], names[:len(names)-1]
		case strings.HasSuffix(line, "{"):
			name := strings.TrimSpace(strings.TrimSuffix(line, "{"))
			if name == "" || strings.ContainsAny(name, " \t{}:") {
				return nil, fault("begins a section without a name")
			}
			inner := newSection()
			here.sections[name] = append(here.sections[name], inner)
			open, names = append(open, inner), append(names, name)
		case isPair && len(open) > 1 && strings.TrimSpace(key) != "":
			here.values[strings.TrimSpace(key)] = strings.TrimSpace(value)
		case isPair:
			return nil, fault("is in no section")
		default:
			return nil, fault("is neither a section nor key: value")
		}
	}
	if len(names) > 0 {
		return nil, fmt.Errorf("section %s has no end", names[len(names)-1])
	}
	return root, nil
}

// value returns the value of a key in the sections of that name. The last one counts.
func (s *section) value(name, key string) string {
	value := ""
	for _, inner := range s.sections[name] {
		if v, ok := inner.values[key]; ok {
			value = v
		}
	}
	return value
}

// A corosyncNode is an entry of the list of nodes.
type corosyncNode struct {
	name  string
	links int
}

func (s *section) nodes() []corosyncNode {
	var nodes []corosyncNode
	for _, list := range s.sections["nodelist"] {
		for _, node := range list.sections["node"] {
			n := corosyncNode{name: node.values["name"]}
			for key := range node.values {
				if strings.HasPrefix(key, "ring") && strings.HasSuffix(key, "_addr") {
					n.links++
				}
			}
			nodes = append(nodes, n)
		}
	}
	return nodes
}

// hasDevice reports whether a quorum device has a vote.
func (s *section) hasDevice() bool {
	return slices.ContainsFunc(s.sections["quorum"], func(quorum *section) bool { return len(quorum.sections["device"]) > 0 })
}
