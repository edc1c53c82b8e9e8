package metadata

import (
	"fmt"
	"strings"

	"ocf-clusterip/internal/services"
)

// Kind is the type of a parameter's value.
type Kind int

// The kinds, each with the type of its value in Values.
const (
	Addresses     Kind = iota + 1 // IPv4 and IPv6 addresses that a host may have; []netip.Addr
	InterfaceName                 // the name of a network interface; string
	MAC                           // six bytes; net.HardwareAddr
	Select                        // one of the Options; string
	Unsigned                      // a number from Min to Max; uint32
	Milliseconds                  // a number of milliseconds from Min to Max; time.Duration
	Seconds                       // a number of seconds from Min to Max; time.Duration
	Seed                          // a number from Min to Max, decimal or hexadecimal; uint32
	Boolean                       // bool
	PrefixLengths                 // one number from Min to Max, or one for IPv4 and one for IPv6; []uint32
	Services                      // a list; []services.Service, merged
)

// Parameter is one line of the table.
type Parameter struct {
	Name        string
	Short       string   // one line: what it is
	Long        string   // paragraphs: what it does, and how to choose it
	Kind        Kind     // type of the value
	Min, Max    uint32   // for the kinds that are numbers
	Options     []Option // for Select, the default first
	Default     string   // the value if none is given; empty if there is none, or if it is derived
	Derived     string   // how the agent derives the value if none is given; prose
	Example     string   // a value
	Required    bool
	UniqueGroup string // no two resources may have the same values in one group
	Reloadable  bool   // reload-agent applies a change
}

// Option is a value that a Select may have.
type Option struct {
	Value   string
	Meaning string // a sentence or more
}

// ContentType returns the type's name in the meta-data document.
func (p Parameter) ContentType() string {
	switch p.Kind {
	case Select:
		return "select"
	case Unsigned, Milliseconds, Seconds:
		return "integer"
	case Boolean:
		return "boolean"
	default: // a Seed too: it may be hexadecimal
		return "string"
	}
}

// Allowed describes the values that a parameter may have. It fits into an error, "is not …", and into the manual, "Allowed: …".
func (p Parameter) Allowed() string {
	switch p.Kind {
	case Addresses:
		return "an IPv4 or IPv6 address such as " + p.Example + ", or a list of them"
	case InterfaceName:
		return "the name or an alternative name of an interface: 1 to 127 printable ASCII characters without space, slash and colon"
	case MAC:
		return "a MAC address of six bytes such as " + p.Example
	case Select:
		var values []string
		for _, option := range p.Options {
			values = append(values, option.Value)
		}
		return "one of " + strings.Join(values, ", ")
	case Unsigned:
		return fmt.Sprintf("a number from %d to %d", p.Min, p.Max)
	case Milliseconds:
		return fmt.Sprintf("a number of milliseconds from %d to %d", p.Min, p.Max)
	case Seconds:
		return fmt.Sprintf("a number of seconds from %d to %d", p.Min, p.Max)
	case Seed:
		return fmt.Sprintf("a number from %d to %d, decimal or hexadecimal with 0x in front", p.Min, p.Max)
	case PrefixLengths:
		return fmt.Sprintf("a number from %d to %d, or two such as %s", p.Min, p.Max, p.Example)
	case Services:
		return fmt.Sprintf("a list of services such as %q or tcp/5000-5100, of the protocols "+
			"%s", p.Example, strings.Join(services.Protocols(), ", "))
	case Boolean:
		return "true or false (or yes, no, on, off, 1, 0)"
	default:
		panic(fmt.Sprintf("metadata: parameter %s has no kind", p.Name))
	}
}

// defaultText describes the value if none is given.
func (p Parameter) defaultText() string {
	if p.Default == "" {
		return p.Derived
	}
	return p.Default
}
