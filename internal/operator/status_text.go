package operator

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/handover"
	"ocf-clusterip/internal/operator/style"
	"ocf-clusterip/internal/text"
)

// Colour returns the colour in which a health is shown.
func (h Health) Colour() style.Colour {
	return [...]style.Colour{style.Green, style.Yellow, style.Red}[h]
}

// Colour returns the colour in which the state of a bucket is shown.
func (b BucketStatus) Colour() style.Colour {
	switch b.State {
	case Owned:
		return style.Green
	case Adopting, Lingering, Unknown:
		return style.Yellow
	case Draining, Unowned, SeveralOwners:
		return style.Red
	default:
		return style.Plain
	}
}

// WriteStatus writes a status for people.
func WriteStatus(to io.Writer, status Status, look style.Style) error {
	w := &strings.Builder{}
	if status.Cluster != nil {
		var nodes []string
		for _, node := range status.Cluster.Nodes {
			text := node.Name + " " + node.State
			if node.Name == status.Node {
				text += " (here)"
			}
			nodes = append(nodes, text)
		}
		field(w, look, "nodes", strings.Join(nodes, ", "))
	}
	writeProblems(w, look, status.Problems)
	for i, r := range status.Resources {
		if i > 0 || w.Len() > 0 {
			fmt.Fprintln(w)
		}
		r.write(w, look)
	}
	_, err := io.WriteString(to, w.String())
	return err
}

const (
	fieldWidth = 12 // of a field's name
	indent     = "  "
)

func field(w io.Writer, look style.Style, name, value string) {
	hanging := strings.Repeat(" ", len(indent)+fieldWidth)
	text := strings.TrimPrefix(text.Wrap(value, hanging, look.Width), hanging)
	_, _ = fmt.Fprintf(w, "%s%-*s%s\n", indent, fieldWidth, name, text) // to a strings.Builder
}

func (r ResourceStatus) write(w io.Writer, look style.Style) {
	title := look.Paint(style.Bold, cmp.Or(r.Name, "(no name)"))
	_, _ = fmt.Fprintf(w, "%s %s: %s\n", title, text.Join(r.Addresses, " "), look.Paint(r.Health.Colour(), r.Health.String()))
	writeProblems(w, look, r.Problems)
	if len(r.Buckets) == 0 {
		return
	}
	field(w, look, "MAC", fmt.Sprintf("%s (%s%s)", strings.Join(r.MACs, " "), r.MACMode, on(r.NIC)))
	hash := fmt.Sprintf("%s as %s, seed fingerprint %s, buckets: %d", r.HashMode, r.HashCompat, r.SeedFingerprint, len(r.Buckets))
	if r.HashPrefix4 != 32 || r.HashPrefix6 != 128 {
		hash += fmt.Sprintf(", networks of %d and %d bits", r.HashPrefix4, r.HashPrefix6)
	}
	field(w, look, "hash", hash)
	if len(r.Services) > 0 {
		field(w, look, "services", strings.Join(r.Services, " ")+"; everything else belongs to bucket 0")
	}
	if r.Backend == "" {
		field(w, look, "backend", "none: nothing is installed on this node")
	} else {
		field(w, look, "backend", fmt.Sprintf("%s (%s)", r.Backend, r.BackendReason))
	}
	drain := "connections survive moves, for an unknown time"
	switch limit := r.DrainSeconds; {
	case limit == nil:
	case *limit > 0:
		drain = fmt.Sprintf("connections survive moves for up to %.0f s", *limit)
	default:
		drain = "off: a move breaks the bucket's connections"
	}
	field(w, look, "drain", drain)
	if len(r.Shares) > 0 {
		var shares []string
		for _, share := range r.Shares {
			shares = append(shares, fmt.Sprintf("%s %d", share.Node, share.Buckets))
		}
		field(w, look, "shares", strings.Join(shares, ", "))
	}
	if r.Foreign != nil {
		field(w, look, "foreign", r.Foreign.String()+" of other nodes' buckets, dropped")
	}
	if r.Backend != "" {
		early := fmt.Sprintf("%s (%s)", r.EarlyDrop, r.EarlyDropReason)
		if r.EarlyDropped != nil {
			early += fmt.Sprintf(": %s of these", r.EarlyDropped)
		}
		field(w, look, "early drop", early)
		field(w, look, "memory", r.memory())
	}
	_, _ = fmt.Fprintln(w)
	r.writeBuckets(w, look)
}

func (r ResourceStatus) memory() string {
	m := r.Memory
	switch {
	case m == nil && r.EarlyDrop == string(clusterip.EarlyDropOff):
		return "none, because early drop is off: clients of a node that dies are not told"
	case m == nil:
		return "none (remember=0, or too little memory): clients of a node that dies are not told"
	case m.ToldAt == nil:
		return fmt.Sprintf("%d of at most %d connections", m.Connections, m.Limit)
	}
	took := time.Duration(m.ToldSeconds * float64(time.Second)).Round(time.Millisecond)
	return fmt.Sprintf("%d of at most %d connections; %d clients were told that theirs were over, the last ones at %s within %s",
		m.Connections, m.Limit, m.Told, m.ToldAt.Format(time.DateTime), took)
}

func on(nic string) string {
	if nic == "" {
		return ""
	}
	return " on " + nic
}

func (t Traffic) String() string {
	text := fmt.Sprintf("%d packets, %s", t.Packets, Bytes(float64(t.Bytes)))
	if t.PacketsPerSecond != nil && t.BytesPerSecond != nil {
		text += fmt.Sprintf(" (%.0f and %s a second)", *t.PacketsPerSecond, Bytes(*t.BytesPerSecond))
	}
	return text
}

// Bytes returns a number of bytes in the units of IEC 80000-13.
func Bytes(n float64) string {
	const step = 1024
	units := []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB"}
	i := 0
	for n >= step && i < len(units)-1 {
		n, i = n/step, i+1
	}
	if i == 0 {
		return fmt.Sprintf("%.0f B", n)
	}
	return fmt.Sprintf("%.1f %s", n, units[i])
}

// writeBuckets writes a table with a line for each bucket. A column without values is left out.
func (r ResourceStatus) writeBuckets(w io.Writer, look style.Style) {
	has := func(is func(BucketStatus) bool) bool { return slices.ContainsFunc(r.Buckets, is) }
	drains := has(func(b BucketStatus) bool { return len(b.Drains) > 0 })
	counted := has(func(b BucketStatus) bool { return b.Traffic != nil })
	rates := has(func(b BucketStatus) bool { return b.Traffic != nil && b.Traffic.PacketsPerSecond != nil })
	const gap = 2
	table := tabwriter.NewWriter(w, 0, 0, gap, ' ', 0)
	row := func(bucket, node, state, drain, packets, bytes, packetRate, byteRate string) {
		cells := []string{indent + bucket, node, state}
		if drains {
			cells = append(cells, drain)
		}
		if counted {
			cells = append(cells, packets, bytes)
		}
		if rates {
			cells = append(cells, packetRate, byteRate)
		}
		_, _ = fmt.Fprintln(table, strings.Join(cells, "\t"))
	}
	row("BUCKET", "NODE", look.Paint(style.Plain, "STATE"), "DRAINS ON", "PACKETS", "BYTES", "PACKETS/S", "BYTES/S")
	for _, b := range r.Buckets {
		packets, bytes, packetRate, byteRate := "-", "-", "-", "-"
		if t := b.Traffic; t != nil {
			packets, bytes = fmt.Sprint(t.Packets), Bytes(float64(t.Bytes))
			if t.PacketsPerSecond != nil && t.BytesPerSecond != nil {
				packetRate, byteRate = fmt.Sprintf("%.0f", *t.PacketsPerSecond), Bytes(*t.BytesPerSecond)
			}
		}
		row(fmt.Sprint(b.Bucket), cmp.Or(strings.Join(b.Nodes, ","), "-"), look.Paint(b.Colour(), b.State), b.DrainsOn(),
			packets, bytes, packetRate, byteRate)
	}
	_ = table.Flush() // to a strings.Builder
}

// DrainsOn returns the nodes that drain a bucket, for people.
func (b BucketStatus) DrainsOn() string {
	var all []string
	for _, d := range b.Drains {
		node := d.Node
		if node == handover.AnyNode {
			node = "any node"
		}
		text := fmt.Sprintf("%s (%.0f s", node, d.Seconds)
		if d.Connections != nil {
			text += fmt.Sprintf(", %d open", *d.Connections)
		}
		if d.LingersSeconds > 0 {
			text += fmt.Sprintf(", lingers %.0f s", d.LingersSeconds)
		}
		all = append(all, text+")")
	}
	return cmp.Or(strings.Join(all, ", "), "-")
}

// writeProblems writes the problems, each with the command that solves it.
func writeProblems(w io.Writer, look style.Style, problems []Problem) {
	for _, p := range problems {
		text := text.Wrap(p.Text, indent+indent, look.Width)
		_, _ = fmt.Fprintf(w, "%s%s %s\n", indent, look.Paint(p.Health.Colour(), "!"), strings.TrimPrefix(text, indent+indent))
		if p.Command != "" {
			_, _ = fmt.Fprintf(w, "%s%s$ %s\n", indent, indent, p.Command)
		}
	}
}

// WriteJSON writes a value for programs.
func WriteJSON(to io.Writer, value any) error {
	encoder := json.NewEncoder(to)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false) // commands have & and >
	return encoder.Encode(value)
}
