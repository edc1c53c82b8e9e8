package network

import (
	"fmt"
	"io"
	"strings"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/ocf"
)

// A section is one thing to set on a device.
type section struct {
	title    string
	why      []string // paragraphs
	commands []string
	// unsure are commands that are written as comments, so that pasting does not run them: they are not for every device, or their form
	// could not be checked; why says which.
	unsure []string
}

// Write says what the network of an address needs: commands for the vendor's devices, or without a vendor what it is about.
// No line of prose is wider than the width.
func Write(to io.Writer, layout clusterip.Layout, options Options, width int) error {
	r, err := options.parse(layout)
	if err != nil {
		return err
	}
	text := newText(width)
	if options.Vendor == "" {
		text.general(r)
	} else {
		text.commands(r)
	}
	_, err = io.WriteString(to, text.written.String())
	return err
}

type text struct {
	written strings.Builder
	width   int
	comment string // what prose begins with, so that it can be pasted
}

func newText(width int) *text {
	const narrowest, widest = 40, 100
	return &text{width: min(max(width, narrowest), widest)}
}

// commands writes what a vendor's devices are told. Prose is comments.
func (t *text) commands(r request) {
	t.comment = r.vendor.comment
	t.paragraph("", fmt.Sprintf("%s: %s, mac_mode=%s, %s", r.vendor.devices, joined(r.layout.Addresses()), r.mode(), strings.Join(macs(r), ", ")))
	for _, line := range r.vendor.intro {
		t.paragraph("", line)
	}
	t.lines(r.vendor.enter)
	for number, section := range r.vendor.sections(r) {
		t.lines([]string{r.vendor.empty})
		t.paragraph("", fmt.Sprintf("%d. %s", number+1, section.title))
		for _, why := range section.why {
			t.paragraph("", why)
		}
		t.lines(section.commands)
		for _, command := range section.unsure {
			t.lines([]string{t.comment + "    " + command})
		}
	}
	t.lines(r.vendor.leave)
}

func (t *text) lines(lines []string) {
	for _, line := range lines {
		t.written.WriteString(line + "\n")
	}
}

// paragraph wraps prose. What follows the first line is as far in as the bullet is wide.
func (t *text) paragraph(bullet, prose string) {
	lines := ocf.Wrap(prose, t.comment+strings.Repeat(" ", len(bullet)), t.width)
	t.lines([]string{t.comment + bullet + lines[len(t.comment)+len(bullet):]})
}

// macs are the cluster MACs in the usual form.
func macs(r request) []string {
	var all []string
	for _, mac := range r.layout.AllMACs() {
		all = append(all, mac.String())
	}
	return all
}

func joined[T fmt.Stringer](all []T) string {
	texts := make([]string, len(all))
	for i, one := range all {
		texts[i] = one.String()
	}
	return strings.Join(texts, ", ")
}
