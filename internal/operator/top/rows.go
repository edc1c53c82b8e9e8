package top

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"ocf-clusterip/internal/ocf"
	"ocf-clusterip/internal/operator"
)

// row is a bucket.
type row struct {
	resource string
	operator.BucketStatus
	here        string // what this node does for it
	connections string // that this node still serves for its drain
}

// rows returns all buckets of all resources, in the order in which they are shown.
func (m Model) rows() []row {
	var rows []row
	for _, r := range m.status.Resources {
		for _, b := range r.Buckets {
			one := row{resource: nameOf(r), BucketStatus: b, here: cmp.Or(m.status.Here(b), "-"), connections: "-"}
			if drain, drains := m.status.DrainHere(b); drains {
				one.connections = "unknown"
				if drain.Connections != nil {
					one.connections = fmt.Sprint(*drain.Connections)
				}
			}
			rows = append(rows, one)
		}
	}
	if m.byLoad {
		slices.SortStableFunc(rows, func(a, b row) int { return cmp.Compare(b.load(), a.load()) })
	}
	return rows
}

// load is what the rows are sorted by: packets a second. Buckets without a rate come last.
func (r row) load() float64 {
	if r.Traffic == nil || r.Traffic.PacketsPerSecond == nil {
		return -1
	}
	return *r.Traffic.PacketsPerSecond
}

// rates returns the packets and bytes a second, as text.
func rates(t *operator.Traffic) (packets, bytes string) {
	if t == nil || t.PacketsPerSecond == nil || t.BytesPerSecond == nil {
		return "-", "-"
	}
	return rate(*t.PacketsPerSecond), operator.Bytes(*t.BytesPerSecond)
}

// rate has at most nine digits, which is more than any interface receives.
func rate(packets float64) string {
	const most = 999_999_999
	if packets > most {
		return fmt.Sprintf("%.2g", packets)
	}
	return fmt.Sprintf("%.0f", packets)
}

func nameOf(r operator.ResourceStatus) string {
	return ocf.OneLine(cmp.Or(r.Name, addressOf(r), "(no name)"))
}

// addressOf returns the first address. There is none if the configuration is wrong.
func addressOf(r operator.ResourceStatus) string {
	if len(r.Addresses) == 0 {
		return ""
	}
	return r.Addresses[0].String()
}

// owners returns the owners of a bucket, as Pacemaker and this node's kernel see them.
func (r row) owners() string { return ocf.OneLine(cmp.Or(strings.Join(r.Nodes, ","), "-")) }
