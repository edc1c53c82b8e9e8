package network

import (
	"fmt"
	"io"
	"strings"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/text"
)

// A section is one thing to configure on a device.
type section struct {
	title    string
	why      []string // paragraphs
	commands []string
	// unsure are commands that are written as comments, so that pasting does not run them: not every device needs them, or their form
	// could not be verified; why says which.
	unsure []string
}

// Write writes what the network of an address needs: commands for the vendor's devices or, without a vendor, general requirements.
// No line of prose is wider than the width.
func Write(to io.Writer, layout clusterip.Layout, options Options, width int) error {
	r, err := options.parse(layout)
	if err != nil {
		return err
	}
	const narrowest, widest = 40, 100
	w := &writer{width: min(max(width, narrowest), widest)}
	if options.Vendor == "" {
		w.general(r)
	} else {
		w.commands(r)
	}
	_, err = io.WriteString(to, w.written.String())
	return err
}

type writer struct {
	written strings.Builder
	width   int
	comment string // the prefix of prose, so that the whole text can be pasted
}

// commands writes the commands for a vendor's devices. Prose is comments.
func (w *writer) commands(r request) {
	w.comment = r.vendor.comment
	w.paragraph("", fmt.Sprintf("%s: %s, mac_mode=%s, %s", r.vendor.devices, r.addresses(), r.mode(), r.macs()))
	for _, line := range r.vendor.intro {
		w.paragraph("", line)
	}
	w.lines(r.vendor.enter...)
	for number, section := range r.vendor.sections(r) {
		w.lines(r.vendor.empty)
		w.paragraph("", fmt.Sprintf("%d. %s", number+1, section.title))
		for _, why := range section.why {
			w.paragraph("", why)
		}
		w.lines(section.commands...)
		for _, command := range section.unsure {
			w.lines(w.comment + "    " + command)
		}
	}
	w.lines(r.vendor.leave...)
}

func (w *writer) lines(lines ...string) {
	for _, line := range lines {
		w.written.WriteString(line + "\n")
	}
}

// paragraph wraps prose. All lines but the first are indented by the width of the bullet.
func (w *writer) paragraph(bullet, prose string) {
	lines := text.Wrap(prose, w.comment+strings.Repeat(" ", len(bullet)), w.width)
	w.lines(w.comment + bullet + lines[len(w.comment)+len(bullet):])
}
