package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/tests/harness"
	"ocf-clusterip/tests/lan"
)

// A setting is what nodes are measured with.
type setting struct {
	ipv6      bool
	tcp       bool // the packets are TCP segments, else datagrams
	buckets   int
	addresses int
}

// ownedBuckets is how many buckets a node owns, if there are so many. The manual advises several for each node.
const ownedBuckets = 4

// owned returns how many buckets the node owns: the first ones.
func (s setting) owned() int { return min(s.buckets, ownedBuckets) }

// all returns the shared addresses.
func (s setting) all() []netip.Addr {
	address := netip.MustParseAddr(ourAddress)
	if s.ipv6 {
		address = netip.MustParseAddr("2001:db8:10::3")
	}
	addresses := make([]netip.Addr, s.addresses)
	for i := range addresses {
		addresses[i] = address
		address = address.Next()
	}
	return addresses
}

// subnet is the network that the addresses and the IPv4 clients are in.
func (s setting) subnet() netip.Prefix {
	if s.ipv6 {
		return lan.LAN6
	}
	return netip.MustParsePrefix("192.168.0.0/16")
}

// groupMAC is the shared MAC address.
func (s setting) groupMAC() net.HardwareAddr {
	mac := clusterip.DerivedMAC(clusterip.Multicast, s.all()[0])
	return mac[:]
}

func (s setting) String() string {
	family := "IPv4"
	if s.ipv6 {
		family = "IPv6"
	}
	if s.tcp {
		family += ", TCP"
	}
	return fmt.Sprintf("%s, %s, %s", family, count(s.buckets, "bucket", "buckets"), count(s.addresses, "address", "addresses"))
}

func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// A fate is what a node does with packets.
type fate int

const (
	unmeasured fate = iota // the receiver does not tell these packets from others
	dropped
	delivered // to the socket, or to TCP
)

// A receiver is one thing that a node can be set up with.
type receiver struct {
	name         string
	foreign, own fate // of packets of buckets that the node does not own, and owns
	group        bool // packets go to the shared MAC, not to the node's own
	maxBuckets   int  // 0: no limit
	onlyTCP      bool // it makes a difference only for TCP
	noTCP        bool // it asks conntrack, for which the segments are invalid
	// bucket returns the bucket of a client. Without it there are no buckets.
	bucket  func(s setting, client netip.Addr) clusterip.Bucket
	install func(ctx context.Context, n *receiverNode) error
}

// The names of those that others are compared with.
const (
	xdpDropName = "bare XDP_DROP"
	peerName    = "IPaddr2, nft"
	offName     = "ours, early_drop=off"
	tcName      = "ours, early_drop=tc"
	xdpName     = "ours, early_drop=xdp"

	// Without a memory of TCP connections.
	tcForgets  = "ours, early_drop=tc, remember=0"
	xdpForgets = "ours, early_drop=xdp, remember=0"
)

// receivers returns all that the agent can do, and why some are missing.
func receivers(ctx context.Context, agent string) (all []receiver, missing string, err error) {
	all = []receiver{
		{name: xdpDropName, foreign: dropped, install: installDrop},
		{name: "nothing installed", foreign: dropped, install: func(context.Context, *receiverNode) error { return nil }},
		{name: "the address alone", foreign: delivered, own: delivered, install: addAddresses},
		{
			name: peerName, foreign: dropped, own: delivered, group: true,
			bucket: func(s setting, client netip.Addr) clusterip.Bucket { return bucketOf(s, client, peerSeed) }, install: installPeerNFT,
		},
		{
			name: "IPaddr2, xt_cluster", foreign: dropped, own: delivered, group: true, maxBuckets: 32, noTCP: true,
			bucket: func(s setting, client netip.Addr) clusterip.Bucket {
				if client.Is6() { // the match hashes its first 32 bits only (xt_cluster_hash_ipv6 in net/netfilter/xt_cluster.c)
					b := client.As16()
					client = netip.AddrFrom4([4]byte(b[:]))
				}
				return bucketOf(s, client, peerSeed)
			},
			install: installPeerXT,
		},
	}
	names := []string{offName, tcName, tcForgets, xdpName, xdpForgets}
	parameters := map[string][]string{
		offName: {"early_drop", "off"}, tcName: {"early_drop", "tc"}, xdpName: {"early_drop", "xdp"},
		tcForgets: {"early_drop", "tc", "remember", "0"}, xdpForgets: {"early_drop", "xdp", "remember", "0"},
	}
	out, err := exec.CommandContext(ctx, agent, "meta-data").Output()
	if err != nil {
		return nil, "", fmt.Errorf("%s meta-data: %w", agent, err)
	}
	if !bytes.Contains(out, []byte(`<parameter name="early_drop"`)) {
		names, parameters = names[:1], nil
		missing = "this agent has no parameter early_drop"
	}
	for _, name := range names {
		all = append(all, receiver{
			name: name, foreign: dropped, own: delivered, group: true, onlyTCP: name == tcForgets || name == xdpForgets,
			bucket: func(s setting, client netip.Addr) clusterip.Bucket {
				return bucketOf(s, client, clusterip.DefaultSeed(s.all()[0]))
			},
			install: func(ctx context.Context, n *receiverNode) error {
				return startAgent(ctx, n, agent, parameters[name]...)
			},
		})
	}
	return all, missing, nil
}

func bucketOf(s setting, client netip.Addr, seed clusterip.Seed) clusterip.Bucket {
	return clusterip.BucketOf(clusterip.SourceIP, clusterip.XTCluster, clusterip.Flow{Source: client}, seed, uint32(s.buckets))
}

// fits reports whether the receiver can be set up so.
func (r *receiver) fits(s setting) bool {
	return (r.maxBuckets == 0 || s.buckets <= r.maxBuckets) && (!r.onlyTCP || s.tcp) && (!r.noTCP || !s.tcp)
}

// fate returns what becomes of foreign or own packets.
func (r *receiver) fate(foreign bool) fate {
	if foreign {
		return r.foreign
	}
	return r.own
}

// owns reports whether the node answers a client.
func (r *receiver) owns(s setting, client netip.Addr) bool {
	return r.bucket == nil || int(r.bucket(s, client)) < s.owned()
}

// A receiverNode is a node that a receiver is installed on. A cable of its own connects it to the generator.
type receiverNode struct {
	*receiver
	setting setting
	host    *lan.Host
	scratch string
	port    int // ifindex of the generator's end of the cable
	socket  int
	closers []io.Closer
	costs   map[bool][]float64 // ns for each packet, of foreign ones and of own ones
}

// discard is a port on which the node listens and reads nothing (RFC 863).
const discard = 9

// newReceiverNode makes a node, and installs the receiver.
func newReceiverNode(
	ctx context.Context, network *lan.Network, from *lan.Host, r *receiver, s setting, number int, scratch string,
) (n *receiverNode, err error) {
	n = &receiverNode{receiver: r, setting: s, socket: -1, costs: map[bool][]float64{}}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("%s: %w", r.name, err), n.close())
		}
	}()
	name := fmt.Sprintf("node%d", number)
	n.scratch = filepath.Join(scratch, name)
	if err := os.MkdirAll(n.scratch, 0o755); err != nil {
		return n, err
	}
	if n.host, err = network.NewHost(name); err != nil {
		return n, err
	}
	n.host.MAC = net.HardwareAddr{2, 0, 0, 0, 1, byte(number)}
	near := netlink.NewLinkAttrs()
	near.Name = name
	if err := from.Wire(near, n.host, lan.NIC, n.host.MAC); err != nil {
		return n, err
	}
	if err := errors.Join(from.SetUp(name), n.host.SetUp(lan.NIC), from.WaitUp(ctx, name), n.host.WaitUp(ctx, lan.NIC)); err != nil {
		return n, err
	}
	cable, err := from.Handle().LinkByName(name)
	if err != nil {
		return n, err
	}
	n.port = cable.Attrs().Index
	own := netip.PrefixFrom(lan.Nth(s.subnet(), 1), s.subnet().Bits())
	if err := errors.Join(n.host.EnableGRO(lan.NIC), n.host.AddAddress(lan.NIC, own)); err != nil {
		return n, err
	}
	if s.ipv6 {
		if err := n.host.WaitIPv6(ctx, lan.NIC); err != nil {
			return n, err
		}
	}
	if err := n.host.Do(n.listen); err != nil {
		return n, fmt.Errorf("listen: %w", err)
	}
	return n, r.install(ctx, n)
}

// listen opens a socket with the least buffer, which two or three packets fill for good. The kernel takes all others as far as to this
// buffer, counts them and frees them: nobody has to be woken, and no memory is used up. So an own packet costs what any would cost that
// reaches an application, whatever the receiver is; a rule that drops it earlier would need a table of its own on every node.
func (n *receiverNode) listen() (err error) {
	domain, address := unix.AF_INET, unix.Sockaddr(&unix.SockaddrInet4{Port: discard})
	if n.setting.ipv6 {
		domain, address = unix.AF_INET6, &unix.SockaddrInet6{Port: discard}
	}
	if n.socket, err = unix.Socket(domain, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
		return err
	}
	return errors.Join(unix.SetsockoptInt(n.socket, unix.SOL_SOCKET, unix.SO_RCVBUF, 1), unix.Bind(n.socket, address))
}

// frames returns what the generator is to send: datagrams or segments of clients to all addresses in turns.
func (n *receiverNode) frames(foreign bool, from net.HardwareAddr) ([][]byte, error) {
	mac := n.host.MAC
	if n.group {
		mac = n.setting.groupMAC()
	}
	addresses := n.setting.all()
	var frames [][]byte
	const enough = 1 << 17
	for i := range enough {
		client := n.client(i)
		if n.bucket != nil && n.owns(n.setting, client) == foreign {
			continue
		}
		source, target := endpoint{from, client, uint16(20000 + i%20000)}, endpoint{mac, addresses[len(frames)%len(addresses)], discard}
		if n.setting.tcp {
			frames = append(frames, tcpFrame(source, target))
		} else {
			frames = append(frames, udpFrame(source, target))
		}
		if len(frames) == framesPerSet {
			return frames, nil
		}
	}
	return nil, fmt.Errorf("only %d clients fit", len(frames))
}

// client returns one of many addresses, which differ in all parts that may be hashed.
func (n *receiverNode) client(i int) netip.Addr {
	const golden = 0x9e3779b1 // of Knuth's multiplicative hash
	scattered := uint32(i+1) * golden
	if !n.setting.ipv6 {
		return netip.AddrFrom4([4]byte{192, 168, 64 | byte(scattered>>24)&63, byte(scattered >> 16)})
	}
	return netip.AddrFrom16([16]byte{
		0x20 | byte(scattered>>24)&0x1f, byte(scattered >> 16), byte(scattered >> 8), byte(scattered), 15: byte(i),
	})
}

// counters are what the node has counted.
type counters struct {
	received  uint64 // frames by its interface, those that an XDP program drops included
	lost      uint64 // frames for which there was no room or no memory
	delivered uint64 // datagrams to the socket, whose buffer is full; or segments to TCP, which drops them for their checksum
}

func (n *receiverNode) counters() (c counters, err error) {
	nic, err := n.host.Handle().LinkByName(lan.NIC)
	if err != nil {
		return c, err
	}
	c.received, c.lost = nic.Attrs().Statistics.RxPackets, nic.Attrs().Statistics.RxDropped
	err = n.host.Do(func() error {
		switch {
		case n.setting.tcp:
			c.delivered, err = fromSNMP("Tcp", "InCsumErrors")
		case n.setting.ipv6:
			c.delivered, err = fullBuffers6()
		default:
			c.delivered, err = fromSNMP("Udp", "RcvbufErrors")
		}
		return err
	})
	return c, err
}

// fullBuffers6 returns how many datagrams of IPv6 met a full buffer, in the calling thread's namespace.
func fullBuffers6() (n uint64, err error) {
	text, err := os.ReadFile("/proc/thread-self/net/snmp6")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if _, err := fmt.Sscanf(line, "Udp6RcvbufErrors %d", &n); err == nil {
			return n, nil
		}
	}
	return 0, errors.New("/proc/net/snmp6 has no Udp6RcvbufErrors")
}

// fromSNMP returns a counter of a protocol, in the calling thread's namespace.
func fromSNMP(protocol, counter string) (n uint64, err error) {
	text, err := os.ReadFile("/proc/thread-self/net/snmp")
	if err != nil {
		return 0, err
	}
	var names []string // the first of two lines has the names
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) == 0 || fields[0] != protocol+":" {
			continue
		}
		for i, name := range names {
			if name == counter && i < len(fields) {
				_, err := fmt.Sscan(fields[i], &n)
				return n, err
			}
		}
		names = fields
	}
	return 0, fmt.Errorf("/proc/net/snmp has no %s of %s", counter, protocol)
}

// keep lets close close what an installed receiver needs.
func (n *receiverNode) keep(c io.Closer) { n.closers = append(n.closers, c) }

func (n *receiverNode) close() error {
	var errs []error
	for _, c := range n.closers {
		errs = append(errs, c.Close())
	}
	if n.socket >= 0 {
		errs = append(errs, unix.Close(n.socket))
	}
	return errors.Join(errs...)
}

// installDrop lets the interface's driver drop everything.
func installDrop(_ context.Context, n *receiverNode) error {
	program, err := newDrop()
	if err != nil {
		return fmt.Errorf("load a program: %w", err)
	}
	n.keep(program)
	return n.host.Do(func() error {
		nic, err := net.InterfaceByName(lan.NIC)
		if err != nil {
			return err
		}
		attached, err := link.AttachXDP(link.XDPOptions{Program: program, Interface: nic.Index, Flags: link.XDPDriverMode})
		if err != nil {
			return fmt.Errorf("attach a program to %s: %w", lan.NIC, err)
		}
		n.keep(attached)
		return nil
	})
}

func addAddresses(_ context.Context, n *receiverNode) error {
	for _, address := range n.setting.all() {
		if err := n.host.AddAddress(lan.NIC, netip.PrefixFrom(address, n.setting.subnet().Bits())); err != nil {
			return err
		}
	}
	return nil
}

// startAgent starts the buckets that the node owns.
func startAgent(ctx context.Context, n *receiverNode, program string, earlyDrop ...string) error {
	var addresses []string
	for _, address := range n.setting.all() {
		addresses = append(addresses, address.String())
	}
	agent := harness.Agent{
		Program: program, Host: n.host, TempDir: n.scratch, Buckets: n.setting.buckets,
		Parameters: harness.Parameters{"ip": strings.Join(addresses, " "), "nic": lan.NIC, "arp_count": "1"}.With(earlyDrop...),
	}
	for bucket := range n.setting.owned() {
		if err := agent.Call(ctx, "start", bucket).Failure(); err != nil {
			return fmt.Errorf("start bucket %d: %w", bucket, err)
		}
	}
	return nil
}

// peerSeed is the seed of IPaddr2's rules; its own is a checksum of its parameters.
const peerSeed clusterip.Seed = 2463534242

// installPeerNFT installs rules of the shape that IPaddr2 installs with clusterip_firewall=nft (ClusterLabs/resource-agents, pull request
// 2183 of June 2026): for each address a table with a chain in prerouting, in which each owned bucket is a rule that hashes. A last rule
// drops the rest.
func installPeerNFT(ctx context.Context, n *receiverNode) error {
	family, solicited := "ip", ""
	if n.setting.ipv6 {
		family, solicited = "ip6", "icmpv6 type nd-neighbor-advert accept"
	}
	var script strings.Builder
	for i, address := range n.setting.all() {
		to := fmt.Sprintf("iif %q %s daddr %s", lan.NIC, family, address)
		fmt.Fprintf(&script, "table %s peer%d {\n\tchain prerouting {\n\t\ttype filter hook prerouting priority mangle;\n", family, i)
		for node := n.setting.owned(); node > 0; node-- { // the last one is inserted in front
			fmt.Fprintf(
				&script,
				"\t\t%s jhash %s saddr mod %d seed %d offset 1 == %d meta pkttype set host accept comment \"node %d\"\n",
				to, family, n.setting.buckets, uint32(peerSeed), node, node,
			)
		}
		if solicited != "" {
			fmt.Fprintf(&script, "\t\t%s %s\n", to, solicited)
		}
		fmt.Fprintf(&script, "\t\t%s drop\n\t}\n}\n", to)
	}
	return installPeer(ctx, n, script.String(), "nft", "-f")
}

// installPeerXT installs the rules of clusterip_firewall=iptables likewise: the match hashes the source that conntrack knows.
func installPeerXT(ctx context.Context, n *receiverNode) error {
	program := "iptables-restore"
	if n.setting.ipv6 {
		program = "ip6tables-restore"
	}
	var script strings.Builder
	script.WriteString("*mangle\n")
	for _, address := range n.setting.all() {
		to := fmt.Sprintf("-A PREROUTING -d %s -i %s", address, lan.NIC)
		for node := n.setting.owned(); node > 0; node-- {
			fmt.Fprintf(
				&script,
				"%s -m cluster --cluster-total-nodes %d --cluster-local-node %d --cluster-hash-seed %d -j ACCEPT\n",
				to, n.setting.buckets, node, uint32(peerSeed),
			)
		}
		if n.setting.ipv6 {
			fmt.Fprintf(&script, "%s -p ipv6-icmp -m icmp6 --icmpv6-type neighbour-advertisement -j ACCEPT\n", to)
		}
		fmt.Fprintf(&script, "%s -j DROP\n", to)
	}
	script.WriteString("COMMIT\n")
	return installPeer(ctx, n, script.String(), program)
}

// installPeer loads rules with a program that reads a file, and adds the addresses.
func installPeer(ctx context.Context, n *receiverNode, rules string, loader ...string) error {
	file := filepath.Join(n.scratch, "rules")
	if err := os.WriteFile(file, []byte(rules), 0o600); err != nil {
		return err
	}
	for _, command := range [][]string{append(loader, file), {"ip", "maddr", "add", n.setting.groupMAC().String(), "dev", lan.NIC}} {
		if err := n.host.Run(ctx, lan.ToolPath, command...).Failure(); err != nil {
			return fmt.Errorf("%s: %w", strings.Join(command, " "), err)
		}
	}
	return addAddresses(ctx, n)
}
