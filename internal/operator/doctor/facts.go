// Package doctor checks a node, its cluster and its network for problems with the shared addresses. Each problem has a reason why it
// matters, and the commands that solve it. The package is pure: the facts are gathered elsewhere, and each check is a function of them.
package doctor

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/beevik/etree"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/ocf"
	"ocf-clusterip/internal/pacemaker"
)

// Fact is a value that was read, or the error that kept it from being read.
type Fact[T any] struct {
	Value T
	Err   error
}

// NewFact makes a fact of what functions return.
func NewFact[T any](value T, err error) Fact[T] { return Fact[T]{value, err} }

// Facts are everything that the checks judge.
type Facts struct {
	Node          string               // this node's name; "" if it is not known
	Pacemaker     bool                 // is installed here; without it there are no checks of the cluster
	Configuration Fact[*etree.Element] // the element configuration of the CIB
	Corosync      Fact[string]         // the text of corosync.conf
	Resources     []Resource
	InstalledErr  error         // why it is unknown what is installed here
	Flushes       Fact[[]Flush] // services that remove rules of others
	Neighbours    clusterip.PerFamily[Fact[NeighbourTable]]
}

// NeighbourTable is what the kernel counts in its neighbour table of a family. All network namespaces share the table.
type NeighbourTable struct {
	Entries   uint64
	Overflows uint64 // how often it had no place for another entry since the kernel was booted
}

// Resource is what was read about one resource. A fact that depends on another one is missing if that one could not be read.
type Resource struct {
	Origin     Origin
	Configured *pacemaker.Resource // as in the CIB; nil if it is not there
	Spec       clusterip.Spec
	SpecErr    error    // what is wrong with the parameters
	Unknown    []string // parameters that the agent does not have

	State        Fact[clusterip.State]
	Capabilities []clusterip.Capability
	Around       Fact[Surroundings]
	Networkd     Fact[Networkd]
	NM           Fact[bool]              // whether NetworkManager manages the interface
	Sysctls      map[string]Fact[string] // see Sysctls
	Obstacles    Fact[[]Obstacle]
	NoXDP        Fact[string]                     // why early_drop cannot use XDP; empty if nothing speaks against it
	Conflicts    *Fact[[]clusterip.Conflict]      // hosts that answer for the address with another MAC; nil: not probed
	Querier      clusterip.PerFamily[*Fact[bool]] // whether a querier was heard; nil: not listened for
	Waited       time.Duration                    // for a querier
	Router       *Fact[RouterAnswer]              // nil: not asked
	RouterAt     netip.Addr                       // the router that was asked
}

// Networkd is how systemd-networkd manages an interface.
type Networkd struct {
	File           string // its .network file; empty if it leaves the interface alone
	KeepsAddresses bool   // that it has not configured itself
	KeepsRoutes    bool
	KeepsLeases    bool // KeepConfiguration= has a value for them, such as dhcp
}

// Flush is why a service removes rules of others when it is reloaded or restarted.
type Flush struct {
	Unit        string
	Where       string   // the command, or the file that is loaded
	IsFile      bool     // Where is a file
	IPTables    []string // these tables of iptables are replaced
	AllIPTables bool     // a stop flushes all tables of iptables; without this and IPTables: all tables of nf_tables are removed
}

// Surroundings are the parts of a node that are not its resources', and may interfere with them.
type Surroundings struct {
	Promiscuous []int             // the indexes of the promiscuous interfaces
	Routes      []clusterip.Route // connected ones, of both families
	Gateways    []Gateway
	Neighbours  []Neighbour
	Exempt      clusterip.PerFamily[uint64] // how many entries of the neighbour table do not count against its limit
}

// Gateway is the router of a default route.
type Gateway struct {
	NICIndex int
	Address  netip.Addr // not valid where the route needs none
	IPv6     bool
}

// Neighbour is an entry of the kernel's neighbour table with a MAC address.
type Neighbour struct {
	NICIndex int
	Address  netip.Addr
	MAC      clusterip.MAC
}

// Obstacle is a place in one of the node's firewalls that stops packets for an address, or may stop them.
type Obstacle struct {
	Table    string   // "inet filter", or "iptables-legacy filter"
	Chain    string   // "input"
	Rule     string   // which one, or "policy drop"
	Show     string   // the command that shows it
	Packets  []string // the packets that it stops, in words
	Certain  bool     // it stops some of them whoever the client is
	Untracks bool     // it stops none, but keeps them from conntrack
}

// RouterAnswer is the answer of a router to pings from the interface's own address and then from the shared address. After each unanswered
// ping from the shared address, another one is sent from the interface's own address.
type RouterAnswer struct {
	Direct bool            // the router answers pings
	Missed bool            // it did not answer each of the further pings from the own address: it may limit its answers
	To     []clusterip.MAC // the destinations of its answers to the shared address, as far as this node received them
}

// Origin is where the specification of a resource comes from.
type Origin string

// The origins.
const (
	FromCIB    Origin = "as configured"
	FromKernel Origin = "as installed on this node"
	FromFlags  Origin = "as requested"
)

// Layout returns the layout of what is installed on this node or, where nothing is, of what would be. The error is why the spec cannot be
// installed, unless the only reason is an interface without IPv6, which has a check of its own.
func (r Resource) Layout() (clusterip.Layout, error) {
	seen := r.State.Value
	seen.NICs = slices.Clone(seen.NICs)
	for i := range seen.NICs {
		seen.NICs[i].NoIPv6 = false
	}
	layout, err := r.Spec.Resolve(seen)
	if installed := seen.Tables.Installed; installed != nil {
		layout = *installed
	}
	if layout.Backend == "" {
		layout.Backend = r.backend()
	}
	return layout, err
}

// backend returns the backend that is installed, or else the requested one, or else the one that backend=auto selects.
func (r Resource) backend() clusterip.Backend {
	if installed := r.State.Value.Tables.Backend; installed != "" {
		return installed
	}
	if r.Spec.Backend != clusterip.Auto {
		return r.Spec.Backend
	}
	for _, wanted := range []clusterip.Answer{clusterip.Yes, clusterip.Unknown} {
		for _, c := range r.Capabilities {
			if c.Answer == wanted {
				return c.Backend
			}
		}
	}
	return ""
}

// name returns the name by which texts call the resource.
func (r Resource) name() string {
	if r.Configured != nil {
		return ocf.OneLine(r.Configured.Name)
	}
	return cmp.Or(ocf.OneLine(r.Spec.Resource), r.Spec.Address().String())
}

// cloneName returns the name of the clone for pcs.
func (r Resource) cloneName() string {
	if r.Configured != nil {
		return r.Configured.ID()
	}
	return r.name()
}

// FirstIPv4 returns the address from which a router is pinged, if there is one.
func FirstIPv4(layout clusterip.Layout) (netip.Addr, bool) {
	addresses := layout.Addresses()
	i := slices.IndexFunc(addresses, netip.Addr.Is4)
	if i < 0 {
		return netip.Addr{}, false
	}
	return addresses[i], true
}

// The kernel parameters that the checks need, by their paths below /proc/sys. %s stands for the name of an interface.
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
	neighbourMax   = "net/%s/neigh/default/gc_thresh3" // of ipv4 or ipv6; only the first network namespace has it
)

// Sysctls lists the kernel parameters to be read on a node with these interfaces.
func Sysctls(nics []clusterip.NIC) []string {
	names := []string{conntrackCount, conntrackMax, conntrackLoose, fmt.Sprintf(neighbourMax, "ipv4"), fmt.Sprintf(neighbourMax, "ipv6")}
	for _, nic := range append([]clusterip.NIC{{Name: "all"}}, nics...) {
		for _, format := range []string{
			reversePath, arpIgnore, arpFilter, routeLocalnet, arpAnnounce, forwards4, forwards6, dropsGroups4, dropsGroups6, disablesIPv6,
		} {
			names = append(names, fmt.Sprintf(format, nic.Name))
		}
	}
	return names
}
