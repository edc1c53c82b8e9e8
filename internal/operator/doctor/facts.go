// Package doctor judges what is seen of a node and its cluster: what is in the way of the shared addresses, why it matters, and what to
// type. It reads nothing by itself: facts are gathered elsewhere, and each check is a pure function of them.
package doctor

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/beevik/etree"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/ocf"
	"ocf-clusterip/internal/pacemaker"
)

// Told is the answer to a question asked of the node or its cluster: a value, or why there is none.
type Told[T any] struct {
	Value T
	Err   error
}

// Tell makes an answer of what functions return.
func Tell[T any](value T, err error) Told[T] { return Told[T]{value, err} }

// Facts are all that is known.
type Facts struct {
	Node      string // this node's name; "" if it is not known
	Pacemaker bool   // is installed here; without it the cluster is not asked about
	// Configuration is the element configuration of the CIB.
	Configuration Told[*etree.Element]
	Corosync      Told[string] // the text of corosync.conf
	Resources     []Resource
	LaidErr       error // why nobody knows what is laid here
}

// Resource is what is known of one resource. What was not asked, because an answer to something else made it pointless, is left out.
type Resource struct {
	Origin     Origin
	Configured *pacemaker.Resource // as in the CIB; nil if it is not there
	Spec       clusterip.Spec
	SpecErr    error    // what is wrong with the parameters
	Unknown    []string // parameters that there are not

	State        Told[clusterip.State]
	Capabilities []clusterip.Capability
	Around       Told[clusterip.Surroundings]
	Sysctls      map[string]Told[string] // see Sysctls
	Obstacles    Told[[]clusterip.Obstacle]
	Strangers    *Told[[]clusterip.Stranger]      // nil: nobody was asked
	Querier      clusterip.PerFamily[*Told[bool]] // likewise
	Waited       time.Duration                    // for a querier
	Router       *Told[clusterip.RouterAnswer]    // likewise
	RouterAt     netip.Addr                       // that was asked
}

// Origin says where a resource is known from.
type Origin string

// The origins.
const (
	FromCIB    Origin = "as configured"
	FromKernel Origin = "as laid on this node"
	FromFlags  Origin = "as asked"
)

// Layout is how the resource is on this node, or else how it is to be there. An error says why it cannot be as asked: an interface without
// IPv6 is another question.
func (r Resource) Layout() (clusterip.Layout, error) {
	seen := r.State.Value
	seen.NICs = slices.Clone(seen.NICs)
	for i := range seen.NICs {
		seen.NICs[i].NoIPv6 = false
	}
	layout, err := r.Spec.Resolve(seen)
	if laid := seen.Tables.Laid; laid != nil {
		layout = *laid
	}
	if layout.Backend == "" {
		layout.Backend = r.backend()
	}
	return layout, err
}

// backend is the one that is laid, or asked for, or that auto takes.
func (r Resource) backend() clusterip.Backend {
	if laid := r.State.Value.Tables.Backend; laid != "" {
		return laid
	}
	if r.Spec.Backend != clusterip.Auto {
		return r.Spec.Backend
	}
	for _, wanted := range []clusterip.Answer{clusterip.Yes, clusterip.CannotTell} {
		for _, c := range r.Capabilities {
			if c.Answer == wanted {
				return c.Backend
			}
		}
	}
	return ""
}

// name is what to call the resource.
func (r Resource) name() string {
	switch {
	case r.Configured != nil:
		return ocf.OneLine(r.Configured.Name)
	case r.Spec.Resource != "":
		return ocf.OneLine(r.Spec.Resource)
	default:
		return r.Spec.Address().String()
	}
}

// cloneName is what pcs calls the clone, for use in a command.
func (r Resource) cloneName() string {
	if r.Configured != nil && r.Configured.Clone != "" {
		return r.Configured.Clone
	}
	return r.name()
}

// FirstIPv4 is the address that a router is asked about, if there is one.
func FirstIPv4(layout clusterip.Layout) (netip.Addr, bool) {
	for _, address := range layout.Addresses() {
		if address.Is4() {
			return address, true
		}
	}
	return netip.Addr{}, false
}

// Parameters of the kernel that matter, by their paths below /proc/sys. Those of a NIC have its name in them.
const (
	reversePath    = "net/ipv4/conf/%s/rp_filter"
	arpIgnore      = "net/ipv4/conf/%s/arp_ignore"
	arpFilter      = "net/ipv4/conf/%s/arp_filter"
	routeLocalnet  = "net/ipv4/conf/%s/route_localnet"
	arpAnnounce    = "net/ipv4/conf/%s/arp_announce"
	forwards4      = "net/ipv4/conf/%s/forwarding"
	forwards6      = "net/ipv6/conf/%s/forwarding"
	dropsGroups4   = "net/ipv4/conf/%s/drop_unicast_in_l2_multicast"
	dropsGroups6   = "net/ipv6/conf/%s/drop_unicast_in_l2_multicast"
	disablesIPv6   = "net/ipv6/conf/%s/disable_ipv6"
	conntrackCount = "net/netfilter/nf_conntrack_count"
	conntrackMax   = "net/netfilter/nf_conntrack_max"
	conntrackLoose = "net/netfilter/nf_conntrack_tcp_loose"
)

// Sysctls lists the kernel parameters to be read on a node with these NICs.
func Sysctls(nics []clusterip.NIC) []string {
	names := []string{conntrackCount, conntrackMax, conntrackLoose}
	conf := []string{"all"}
	for _, nic := range nics {
		conf = append(conf, nic.Name)
	}
	for _, of := range conf {
		for _, format := range []string{reversePath, arpIgnore, arpFilter, routeLocalnet, arpAnnounce, forwards4, forwards6, dropsGroups4, dropsGroups6, disablesIPv6} {
			names = append(names, fmt.Sprintf(format, of))
		}
	}
	return names
}
