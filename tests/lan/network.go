// Package lan builds a LAN on one machine, in network namespaces: a switch, nodes that may share an address, and a client
// that sends from hundreds of addresses and sees by the Ethernet source of each answer which node sent it. The kernel
// tests, the demo and the benchmark use it.
//
//	client (192.168.10.200 and all of 192.168.64.0/18) ── switch ──┬── node1 (192.168.10.11)
//	                                                               ├── node2 (192.168.10.12)
//	                                                               └── node3 (192.168.10.13)
//
// It needs root, and leaves nothing behind but a higher limit of neighbours (allowNeighbours): New removes what a killed process has left.
package lan

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The names of a host's interfaces.
const (
	NIC           = "eth0" // on the LAN
	ManagementNIC = "eth1" // of a node on the management network
)

// Host numbers on the LAN.
const (
	firstNode = 11
	client    = 200
	router    = 254 // and, on the management network, the switch
	maxNodes  = client - firstNode
)

// The networks that are the same in all LANs (RFC 5737, RFC 3849). Hosts have the same numbers in both families.
var (
	FarNet  = netip.MustParsePrefix("198.51.100.0/24") // behind the router
	FarNet6 = netip.MustParsePrefix("2001:db8:51::/64")
	LAN6    = netip.MustParsePrefix("2001:db8:10::/64")
	// Clients6 are the client's further addresses. The other hosts reach them through the client, because neighbour discovery finds no
	// address that is not on an interface.
	Clients6 = netip.MustParsePrefix("2001:db8:6400::/40")
)

// Options are what a Network may look like. The zero value is three nodes on 192.168.10.0/24.
type Options struct {
	// Nodes is how many nodes share the LAN; 0 means 3.
	Nodes int
	// LAN is a /24: node i (from 1) has host number 10+i, the client 200 and a router 254. Default 192.168.10.0/24.
	LAN netip.Prefix
	// Clients are the client's further addresses, all of them, on the same link. Default 192.168.64.0/18.
	// Inside the LAN it must leave out the hosts above, and the shared address.
	Clients netip.Prefix
	// IPv6 gives the hosts addresses of that family too, without router advertisements and without the search for duplicates. Else
	// they have no IPv6 at all, whose own traffic would be in the way of tests that count frames.
	IPv6 bool
	// Snooping lets the switch read IGMP. That alone changes nothing for frames to a group: a bridge floods them as
	// long as it has no querier.
	Snooping bool
	// Querier makes the switch itself ask for memberships; a second later snooping takes effect. A Linux bridge then
	// looks for the group in the IP header, not in the MAC address: a unicast packet in a multicast frame belongs to no
	// group and goes to no host, members or not (br_mdb_entry_skb_get, br_multicast_flood).
	Querier bool
	// Management is a /24 of a second network that joins the nodes alone, each with its ManagementNIC and the host number
	// that it has on the LAN; the switch itself is host 254 there. None unless given.
	Management netip.Prefix
}

// Network is a LAN. Its methods may be called at the same time.
type Network struct {
	Switch *Host
	Nodes  []*Host
	Client *Host
	Router *Host // after AddRouter
	Far    *Host // after AddRouter: a host behind the router

	Options Options // with the defaults filled in

	prefix  string         // of the namespaces' names
	bridges map[string]int // ifindex, by the interface that is connected to it
	hosts   []*Host
}

// New builds a network and returns when every link carries frames.
func New(ctx context.Context, o Options) (*Network, error) {
	if o.Nodes == 0 {
		o.Nodes = 3
	}
	if !o.LAN.IsValid() {
		o.LAN = netip.MustParsePrefix("192.168.10.0/24")
	}
	if !o.Clients.IsValid() {
		o.Clients = netip.MustParsePrefix("192.168.64.0/18")
	}
	o.LAN, o.Clients = o.LAN.Masked(), o.Clients.Masked()
	switch {
	case !o.LAN.Addr().Is4() || o.LAN.Bits() != 24:
		return nil, fmt.Errorf("LAN %s is not an IPv4 /24", o.LAN)
	case o.Management.IsValid() && (!o.Management.Addr().Is4() || o.Management.Bits() != 24):
		return nil, fmt.Errorf("management network %s is not an IPv4 /24", o.Management)
	case !o.Clients.Addr().Is4():
		return nil, fmt.Errorf("clients' network %s is not IPv4", o.Clients)
	case o.Nodes < 1 || o.Nodes > maxNodes:
		return nil, fmt.Errorf("%d nodes asked, 1..%d possible", o.Nodes, maxNodes)
	}
	n, err := prepare(o)
	if err != nil {
		return nil, err
	}
	if err := n.build(ctx); err != nil {
		return nil, errors.Join(err, n.Close())
	}
	return n, nil
}

// NewEmpty returns a network without a switch and without hosts, for hosts that NewHost makes and Wire connects. They have IPv6.
func NewEmpty() (*Network, error) { return prepare(Options{IPv6: true}) }

// prepare returns a network to which hosts can be added.
func prepare(o Options) (*Network, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("network namespaces need root")
	}
	if err := sweep(); err != nil {
		return nil, fmt.Errorf("remove what crashed runs left: %w", err)
	}
	if err := allowNeighbours(); err != nil {
		return nil, fmt.Errorf("allow many neighbours: %w", err)
	}
	return &Network{Options: o, prefix: fmt.Sprintf("cip%d-%d-", os.Getpid(), networks.Add(1))}, nil
}

// allowNeighbours raises how many neighbours the machine may know. All network namespaces share the table, whose 1024 entries are few for
// networks side by side: whoever finds it full drops packets. Only the first namespace of a machine has the sysctl; in a container, whoever
// runs it sets it.
var allowNeighbours = sync.OnceValue(func() error {
	const enough = 65536
	for _, family := range []string{"ipv4", "ipv6"} {
		name := "/proc/sys/net/" + family + "/neigh/default/gc_thresh3"
		read, err := os.ReadFile(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		most, parseErr := strconv.Atoi(strings.TrimSpace(string(read)))
		if err := errors.Join(err, parseErr); err != nil {
			return err
		}
		if most >= enough {
			continue
		}
		if err := os.WriteFile(name, []byte(strconv.Itoa(enough)), 0); err != nil && !errors.Is(err, unix.EROFS) {
			return err
		}
	}
	return nil
})

func (n *Network) build(ctx context.Context) error {
	var err error
	if err = n.buildSwitch(); err != nil {
		return fmt.Errorf("build the switch: %w", err)
	}
	for i := range n.Options.Nodes {
		node, err := n.NewHost(fmt.Sprintf("node%d", i+1))
		if err != nil {
			return err
		}
		n.Nodes = append(n.Nodes, node)
		if err := n.connectNode(ctx, i); err != nil {
			return err
		}
	}
	if n.Client, err = n.attach(ctx, "client", net.HardwareAddr{2, 0, 0, 0, 2, 1}, client); err != nil {
		return err
	}
	// One route makes the whole prefix the client's own: it answers ARP for each address and may bind to it.
	err = n.Client.addRoute(&netlink.Route{
		Dst: ipNet(n.Options.Clients), Table: unix.RT_TABLE_LOCAL, Type: unix.RTN_LOCAL, Scope: netlink.SCOPE_HOST,
	})
	if err != nil || !n.Options.IPv6 {
		return err
	}
	return errors.Join(
		n.Client.addRoute(&netlink.Route{Dst: ipNet(Clients6), Table: unix.RT_TABLE_LOCAL, Type: unix.RTN_LOCAL}),
		n.Client.Sysctl("net/ipv6/ip_nonlocal_bind", "1"))
}

func (n *Network) buildSwitch() error {
	var err error
	if n.Switch, err = n.NewHost("switch"); err != nil {
		return err
	}
	lan, err := n.addBridge("br0", net.HardwareAddr{2, 0, 0, 0, 0, 1})
	if err != nil {
		return err
	}
	n.bridges = map[string]int{NIC: lan}
	if n.Options.Querier {
		const second = "100" // by default it asks every 31 s and lets hosts answer within 10 s
		for _, o := range [][2]string{
			{"multicast_query_response_interval", second}, {"multicast_startup_query_interval", second}, {"multicast_querier", "1"},
		} {
			err := n.Switch.Do(func() error { return os.WriteFile("/sys/class/net/br0/bridge/"+o[0], []byte(o[1]), 0) })
			if err != nil {
				return err
			}
		}
	}
	if !n.Options.Management.IsValid() {
		return nil
	}
	if n.bridges[ManagementNIC], err = n.addBridge("br1", net.HardwareAddr{2, 0, 0, 0, 0, 2}); err != nil {
		return err
	}
	n.Switch.Addr = Nth(n.Options.Management, router)
	return n.Switch.AddAddress("br1", netip.PrefixFrom(n.Switch.Addr, n.Options.Management.Bits()))
}

// addBridge returns the ifindex of a new bridge of the switch.
func (n *Network) addBridge(name string, mac net.HardwareAddr) (int, error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.HardwareAddr = name, mac
	bridge := &netlink.Bridge{LinkAttrs: attrs, MulticastSnooping: &n.Options.Snooping}
	if err := n.Switch.handle.LinkAdd(bridge); err != nil {
		return 0, err
	}
	return bridge.Index, n.Switch.handle.LinkSetUp(bridge)
}

// NewHost makes an unconnected host.
func (n *Network) NewHost(name string) (*Host, error) {
	h := &Host{Name: name, Namespace: n.prefix + name, ipv6: n.Options.IPv6}
	n.hosts = append(n.hosts, h)
	return h, h.start()
}

// attach makes a host whose eth0 is connected to the LAN.
func (n *Network) attach(ctx context.Context, name string, mac net.HardwareAddr, number int) (*Host, error) {
	h, err := n.NewHost(name)
	if err != nil {
		return nil, err
	}
	h.MAC, h.Addr = mac, Nth(n.Options.LAN, number)
	return h, errors.Join(n.Connect(ctx, h, NIC, mac, netip.PrefixFrom(h.Addr, n.Options.LAN.Bits())), n.addIPv6(ctx, h, number))
}

// addIPv6 gives a host its IPv6 address on the LAN, if there is IPv6.
func (n *Network) addIPv6(ctx context.Context, h *Host, number int) error {
	if !n.Options.IPv6 {
		return nil
	}
	h.Addr6 = Nth(LAN6, number)
	return errors.Join(h.AddAddress(NIC, netip.PrefixFrom(h.Addr6, LAN6.Bits())), h.WaitIPv6(ctx, NIC))
}

// viaClient is the way to the client's further IPv6 addresses.
func viaClient() *netlink.Route {
	return &netlink.Route{Dst: ipNet(Clients6), Gw: Nth(LAN6, client).AsSlice()}
}

// Connect gives a host an interface with an address, connected to the switch.
func (n *Network) Connect(ctx context.Context, h *Host, nic string, mac net.HardwareAddr, addr netip.Prefix) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MasterIndex = port(h, nic), n.bridges[nic]
	if err := n.Switch.Wire(attrs, h, nic, mac); err != nil {
		return fmt.Errorf("plug %s of %s in: %w", nic, h.Name, err)
	}
	return errors.Join(h.AddAddress(nic, addr), n.plug(ctx, h, nic))
}

// connectNode gives Nodes[i] its interfaces and routes.
func (n *Network) connectNode(ctx context.Context, i int) error {
	h, number := n.Nodes[i], firstNode+i
	if h.MAC == nil {
		h.MAC, h.Addr = net.HardwareAddr{2, 0, 0, 0, 1, byte(i + 1)}, Nth(n.Options.LAN, number)
	}
	if err := n.Connect(ctx, h, NIC, h.MAC, netip.PrefixFrom(h.Addr, n.Options.LAN.Bits())); err != nil {
		return err
	}
	if err := errors.Join(
		h.addRoute(&netlink.Route{Dst: ipNet(n.Options.Clients), Scope: netlink.SCOPE_LINK}), n.addIPv6(ctx, h, number),
	); err != nil {
		return err
	}
	if n.Options.IPv6 {
		if err := h.addRoute(viaClient()); err != nil {
			return err
		}
	}
	if !n.Options.Management.IsValid() {
		return nil
	}
	mac := net.HardwareAddr{2, 0, 0, 0, 5, byte(i + 1)}
	return n.Connect(ctx, h, ManagementNIC, mac, netip.PrefixFrom(n.ManagementAddr(i), n.Options.Management.Bits()))
}

// ManagementAddr returns the address of Nodes[i] on the management network.
func (n *Network) ManagementAddr(i int) netip.Addr { return Nth(n.Options.Management, firstNode+i) }

// port names the switch's end of a host's link.
func port(h *Host, nic string) string {
	if nic == ManagementNIC {
		return h.Name + "-mgmt"
	}
	return h.Name
}

func (n *Network) plug(ctx context.Context, h *Host, nic string) error {
	return errors.Join(
		n.Switch.SetUp(port(h, nic)), h.SetUp(nic),
		n.Switch.WaitUp(ctx, port(h, nic)), h.WaitUp(ctx, nic))
}

// UnplugNode pulls a cable of Nodes[i]: the node sees that link go down.
func (n *Network) UnplugNode(i int, nic string) error {
	return n.Switch.handle.LinkSetDown(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Name: port(n.Nodes[i], nic)}})
}

// PlugNode puts a cable of Nodes[i] back, and returns when the link carries frames.
func (n *Network) PlugNode(ctx context.Context, i int, nic string) error {
	return n.plug(ctx, n.Nodes[i], nic)
}

// PowerOff removes the namespace of Nodes[i] with its links, addresses and rules. Processes that still run there lose the
// network at once. Nothing else may use the node meanwhile.
func (n *Network) PowerOff(i int) error {
	h := n.Nodes[i]
	if !h.running() {
		return nil
	}
	var errs []error
	for nic := range n.bridges {
		// This also removes the node's end.
		err := n.Switch.handle.LinkDel(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Name: port(h, nic)}})
		if err != nil && !errors.As(err, new(netlink.LinkNotFoundError)) && !errors.Is(err, unix.ENODEV) {
			errs = append(errs, fmt.Errorf("unplug %s of %s: %w", nic, h.Name, err))
		}
	}
	return errors.Join(append(errs, h.close())...)
}

// PowerOn gives Nodes[i] a new namespace, which has the node's name, MAC and own addresses and nothing else.
func (n *Network) PowerOn(ctx context.Context, i int) error {
	h := n.Nodes[i]
	if h.running() {
		return fmt.Errorf("%s is on", h.Name)
	}
	if err := h.start(); err != nil {
		return err
	}
	return n.connectNode(ctx, i)
}

// AddRouter puts a router with host number 254 on the LAN and behind it, across a link of the given MTU, the host Far
// (198.51.100.10). Far announces a TCP segment size as if its link were as wide as the LAN's: a node learns the path MTU
// from the router's "fragmentation needed" only (RFC 1191).
func (n *Network) AddRouter(ctx context.Context, mtu int) error {
	if n.Router != nil {
		return errors.New("the network has a router")
	}
	var err error
	if n.Router, err = n.attach(ctx, "router", net.HardwareAddr{2, 0, 0, 0, 3, 1}, router); err != nil {
		return err
	}
	if n.Far, err = n.NewHost("far"); err != nil {
		return err
	}
	n.Far.MAC, n.Far.Addr = net.HardwareAddr{2, 0, 0, 0, 4, 1}, Nth(FarNet, 10)
	link := netlink.NewLinkAttrs()
	link.Name, link.MTU = "eth1", mtu
	if err := n.Router.Wire(link, n.Far, NIC, n.Far.MAC); err != nil {
		return err
	}
	gateway := Nth(FarNet, 1)
	lan, err := n.Client.handle.LinkByName(NIC)
	if err != nil {
		return err
	}
	err = errors.Join(
		n.Router.addRoute(&netlink.Route{Dst: ipNet(n.Options.Clients), Scope: netlink.SCOPE_LINK}),
		n.Router.Sysctl("net/ipv4/ip_forward", "1"),
		n.Router.AddAddress("eth1", netip.PrefixFrom(gateway, FarNet.Bits())),
		n.Far.AddAddress(NIC, netip.PrefixFrom(n.Far.Addr, FarNet.Bits())),
		n.Router.SetUp("eth1"), n.Far.SetUp(NIC),
		n.Router.WaitUp(ctx, "eth1"), n.Far.WaitUp(ctx, NIC),
		n.Far.addRoute(&netlink.Route{Gw: gateway.AsSlice(), AdvMSS: lan.Attrs().MTU - 40}))
	for _, h := range append([]*Host{n.Client}, n.Nodes...) {
		err = errors.Join(err, h.addRoute(&netlink.Route{Dst: ipNet(FarNet), Gw: n.Router.Addr.AsSlice()}))
	}
	if err != nil || !n.Options.IPv6 {
		return err
	}
	n.Far.Addr6 = Nth(FarNet6, 10)
	gateway6 := Nth(FarNet6, 1)
	err = errors.Join(
		n.Router.addRoute(viaClient()),
		n.Router.Sysctl("net/ipv6/conf/all/forwarding", "1"),
		n.Router.AddAddress("eth1", netip.PrefixFrom(gateway6, FarNet6.Bits())),
		n.Far.AddAddress(NIC, netip.PrefixFrom(n.Far.Addr6, FarNet6.Bits())),
		n.Far.addRoute(&netlink.Route{Dst: ipNet(LAN6), Gw: gateway6.AsSlice(), AdvMSS: lan.Attrs().MTU - 60}))
	for _, h := range append([]*Host{n.Client}, n.Nodes...) {
		err = errors.Join(err, h.addRoute(&netlink.Route{Dst: ipNet(FarNet6), Gw: n.Router.Addr6.AsSlice()}))
	}
	return err
}

// Sources returns the first count of the client's further addresses, to probe from. It panics when there are fewer.
func (n *Network) Sources(count int) []netip.Addr { return firstOf(n.Options.Clients, count) }

// Sources6 returns IPv6 addresses of the client likewise.
func (n *Network) Sources6(count int) []netip.Addr { return firstOf(Clients6, count) }

// SourcesLike returns addresses of the family of the target.
func (n *Network) SourcesLike(target netip.Addr, count int) []netip.Addr {
	if target.Is6() {
		return n.Sources6(count)
	}
	return n.Sources(count)
}

// Networks6 returns the first count of the /64 networks of which all addresses are the client's.
func (n *Network) Networks6(count int) []netip.Prefix {
	networks := make([]netip.Prefix, count)
	for i := range networks {
		b := Clients6.Addr().As16()
		b[6], b[7] = byte(i>>8), byte(i)
		networks[i] = netip.PrefixFrom(netip.AddrFrom16(b), 64)
	}
	return networks
}

func firstOf(p netip.Prefix, count int) []netip.Addr {
	addrs := make([]netip.Addr, count)
	a := p.Addr()
	for i := range addrs {
		if a = a.Next(); !p.Contains(a) {
			panic(fmt.Sprintf("%d addresses asked of %s", count, p))
		}
		addrs[i] = a
	}
	return addrs
}

// NodeByMAC returns the index in Nodes of the node with that MAC, or NoNode.
func (n *Network) NodeByMAC(mac net.HardwareAddr) int {
	for i, h := range n.Nodes {
		if h.MAC.String() == mac.String() {
			return i
		}
	}
	return NoNode
}

// FDBEntry is one address in the switch's forwarding table.
type FDBEntry struct {
	MAC     net.HardwareAddr
	Port    string // the host that is connected there, or br0
	Learned bool   // from a frame's Ethernet source
}

// BridgeFDB returns the switch's forwarding table.
func (n *Network) BridgeFDB() ([]FDBEntry, error) {
	links, err := n.Switch.handle.LinkList()
	if err != nil {
		return nil, err
	}
	names := map[int]string{}
	for _, l := range links {
		names[l.Attrs().Index] = l.Attrs().Name
	}
	neighs, err := n.Switch.handle.NeighList(0, unix.AF_BRIDGE)
	if err != nil {
		return nil, err
	}
	var entries []FDBEntry
	for _, e := range neighs {
		learned := e.Flags&netlink.NTF_SELF == 0 && e.State&(netlink.NUD_PERMANENT|netlink.NUD_NOARP) == 0
		entries = append(entries, FDBEntry{e.HardwareAddr, names[e.LinkIndex], learned})
	}
	return entries, nil
}

// Hosts returns all hosts, the switch included.
func (n *Network) Hosts() []*Host { return slices.Clone(n.hosts) }

// Close removes the network.
func (n *Network) Close() error {
	var errs []error
	for _, h := range n.hosts {
		errs = append(errs, h.close())
	}
	n.hosts = nil
	return errors.Join(errs...)
}

// upTimeout bounds the wait for a link; the kernel may put a change of carrier off by a second.
const upTimeout = 5 * time.Second

// Nth returns the address of a network with that host number.
func Nth(p netip.Prefix, i int) netip.Addr {
	b := p.Addr().AsSlice()
	b[len(b)-1] += byte(i)
	addr, _ := netip.AddrFromSlice(b)
	return addr
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
