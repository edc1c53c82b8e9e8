package convert

import (
	"crypto/md5" //nolint:gosec // IPaddr2 uses it
	"encoding/binary"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/metadata"
	"ocf-clusterip/internal/ocf"
	"ocf-clusterip/internal/text"
)

// A translation is that of IPaddr2's parameters into those of this agent.
type translation struct {
	old        map[string]string
	generation Generation
	options    Options
	sameMAC    bool // the MAC address stays the same

	now     map[string]string
	rows    []Parameter
	faults  []string
	remarks []string
}

const (
	notASource = "the agent installs an address in a form that is never the source of the node's own connections"
	sendsARP   = "the agent sends gratuitous ARP itself"
)

// needless returns the parameters that the agent does without, and why.
func needless() map[string]string {
	const ownTables = "the agent's rules are in tables of its own"
	return map[string]string{
		"broadcast":                "the agent installs an IPv4 address as /32, which has no broadcast address",
		"iflabel":                  "the label of the address is the interface's name and :c",
		"proto":                    "the agent finds the interface by its connected routes",
		"lvs_ipv6_addrlabel":       notASource,
		"lvs_ipv6_addrlabel_value": notASource,
		"preferred_lft":            notASource,
		"clusterip_firewall": "backend=auto uses nftables where the kernel has it, beside any firewall; backend=xt_cluster is for nodes whose " +
			"rules must all be iptables'",
		"clusterip_table":      ownTables,
		"clusterip_chain":      ownTables,
		"clusterip_mac_mangle": "ARP for the address always contains the shared MAC address",
		"arp_count_refresh":    "the shared MAC address is the same on all nodes, so entries of neighbours stay right",
		"arp_bg":               sendsARP + ", within start",
		"arp_sender":           sendsARP,
		"send_arp_opts":        sendsARP,
		"flush_routes":         "Linux has had no cache of IPv4 routes since 3.6",
		"run_arping":           "start refuses an address that another host uses, and monitor finds one (OCF_CHECK_LEVEL=10)",
		"nodad":                "there is never duplicate address detection for a shared address, because all nodes have it",
		"noprefixroute":        "the agent adds the connected route itself, with a metric that prefers any other",
	}
}

// translate returns the new parameters, what becomes of each old one, and all faults.
func (t *translation) translate() {
	t.now = map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(t.old)) {
		if t.old[name] == "" { // IPaddr2 takes it for not set
			delete(t.old, name)
		}
	}
	if _, ok := t.old["ip"]; !ok {
		t.faults = append(t.faults, "ip is not set")
	}
	for _, name := range slices.Sorted(maps.Keys(t.old)) {
		t.parameter(name, t.old[name])
	}
	t.hash()
	t.sharedMAC()
}

// advertising returns how long the start of a node's first bucket sends gratuitous ARP. IPaddr2 sends it in the background.
func (t *translation) advertising() time.Duration {
	values, _, _ := metadata.Parse(t.now) // check returns its faults
	count, _ := values.Uint32("arp_count")
	return time.Duration(max(1, count)-1) * values.Duration("arp_interval")
}

func (t *translation) row(name string, fate Fate, now, why string) {
	t.rows = append(t.rows, Parameter{Old: setting(name, t.old[name]), New: now, Fate: fate, Why: why})
}

// keep takes a parameter over.
func (t *translation) keep(name, as, value, why string) {
	t.now[as] = value
	t.row(name, Kept, setting(as, value), why)
}

// add sets a parameter that was not set.
func (t *translation) add(name, value, why string) {
	t.now[name] = value
	t.rows = append(t.rows, Parameter{New: setting(name, value), Fate: Added, Why: why})
}

func (t *translation) refuse(name, why string) {
	t.row(name, Refused, "", why)
	t.faults = append(t.faults, fmt.Sprintf("%s: %s", setting(name, t.old[name]), why))
}

func (t *translation) parameter(name, value string) {
	switch name {
	case "clusterip_hash", "clusterip_hash_seed", "mac": // hash and sharedMAC
	case "ip":
		t.keep(name, "ip", value, "")
	case "cidr_netmask", "netmask":
		t.netmask(name, value)
	case "nic":
		t.nic(value)
	case "check_link_status":
		t.keep(name, "check_link", value, "")
	case "arp_count":
		t.number(name, value, 20)
	case "arp_interval":
		t.number(name, value, 500)
	case "unique_clone_address":
		t.onlyFalse(name, "each instance has an address of its own, which runs on one node: nothing is shared. Leave this clone as it is, or "+
			"remove the parameter")
	case "lvs_support":
		t.onlyFalse(name, "IPaddr2 does not share an address with it. Remove it if no LVS director sends packets to these nodes")
	case "network_namespace":
		t.refuse(name, "the agent works in the network namespace that Pacemaker runs in. Only a cluster inside the namespace can use it")
	default:
		why, known := needless()[name]
		if !known {
			why = "IPaddr2 has no such parameter"
		}
		t.row(name, Dropped, "", why)
	}
}

func (t *translation) onlyFalse(name, why string) {
	if ocf.IsTrue(t.old[name]) {
		t.refuse(name, why)
		return
	}
	t.row(name, Dropped, "", "it is off")
}

// netmask also takes the name that IPaddr2 had before, and the form that it accepts (maybe_convert_dotted_quad_to_cidr in findif.sh).
func (t *translation) netmask(name, value string) {
	length := value
	if dotted, err := netip.ParseAddr(value); err == nil && dotted.Is4() {
		ones, bits := net.IPMask(dotted.AsSlice()).Size()
		if bits == 0 {
			t.refuse(name, "the ones of a netmask are in front")
			return
		}
		length = strconv.Itoa(ones)
	}
	if other, set := t.now["cidr_netmask"]; set {
		if other != length {
			t.refuse(name, "it contradicts "+setting("cidr_netmask", t.old["cidr_netmask"])+". Remove one of them")
			return
		}
		t.row(name, Dropped, "", "it is the same as cidr_netmask")
		return
	}
	t.keep(name, "cidr_netmask", length, "")
}

func (t *translation) nic(value string) {
	nic, label, labelled := strings.Cut(value, ":")
	switch {
	case nic == "lo":
		t.refuse("nic", "an address of the loopback interface is not shared over the network: such clones are the real servers of LVS")
	case labelled:
		t.keep("nic", "nic", nic, fmt.Sprintf("without the label %s: %s", ocf.Quote(label), needless()["iflabel"]))
	default:
		t.keep("nic", "nic", nic, "")
	}
}

// number takes over a number, or the most that the agent accepts.
func (t *translation) number(name, value string, most int) {
	number, err := strconv.Atoi(value)
	switch {
	case err != nil || number < 1:
		t.refuse(name, "IPaddr2 accepts numbers from 1 on. Correct it")
	case number > most:
		t.keep(name, name, strconv.Itoa(most), "the most that the agent accepts")
	default:
		t.keep(name, name, value, "")
	}
}

// hash sets what decides which bucket a client is in.
func (t *translation) hash() {
	switch mode, seed := t.old["clusterip_hash"], t.old["clusterip_hash_seed"]; t.generation {
	case Target:
		t.unused("clusterip_hash_seed", seed)
		t.targetHash(mode)
	case Match:
		t.unused("clusterip_hash", mode)
		t.matchHash(seed)
	case Unknown:
		t.remarks = append(t.remarks, "The parameters do not show which IPaddr2 this is. If it uses the target CLUSTERIP (all releases of "+
			"resource-agents up to 4.18), clients are spread by address and port; the commands below spread them by address only, so that all "+
			"connections of a client reach one node. If many clients are behind one address, add hashmode=sourceip-sourceport.")
		if t.options.KeepHash {
			t.faults = append(t.faults, "--keep-hash: the parameters do not show which IPaddr2 this is. Run convert on a node of the cluster, "+
				"without --cib, or set clusterip_hash (target CLUSTERIP) or clusterip_firewall (since June 2026) to what it is by default")
		}
	}
}

// unused drops a parameter of the other generation.
func (t *translation) unused(name, value string) {
	if value != "" {
		t.row(name, Dropped, "", "the IPaddr2 that is installed on this node has no such parameter")
	}
}

func (t *translation) targetHash(mode string) {
	switch {
	case mode == "":
		t.add("hashmode", string(clusterip.SourceIPSourcePort), "the default of clusterip_hash")
	case !slices.Contains(clusterip.HashModes(), clusterip.HashMode(mode)):
		t.refuse("clusterip_hash", "it is none of "+text.Join(clusterip.HashModes(), ", "))
	default:
		t.keep("clusterip_hash", "hashmode", mode, "")
	}
	if address, err := netip.ParseAddr(t.old["ip"]); err == nil && address.Is6() {
		remove := "Remove the clone"
		if mode != "" {
			remove = "Remove clusterip_hash, or the clone"
		}
		t.faults = append(t.faults, setting("ip", t.old["ip"])+": the target CLUSTERIP has no IPv6, so this clone cannot have run. "+remove)
	}
	if t.options.KeepHash {
		t.add("hash_compat", string(clusterip.ClusterIP), "the hash of the target")
		t.add("hash_seed", "0", "IPaddr2 gives the target no --hash-init")
	}
}

func (t *translation) matchHash(seed string) {
	if strings.Contains(t.old["ip"], ":") && t.options.KeepHash {
		switch t.old["clusterip_firewall"] {
		case "iptables":
			t.faults = append(t.faults, "--keep-hash: iptables' match cluster hashes a part of an IPv6 address, which nothing else does")
			return
		case "", "auto":
			t.remarks = append(t.remarks, "clusterip_firewall=auto: IPaddr2 uses nft or iptables, whichever it finds on a node. --keep-hash keeps "+
				"the hash of nft. Where IPaddr2 uses iptables (ip6tables -t mangle -S shows its rules), clients of an IPv6 address change "+
				"their bucket.")
		}
	}
	switch {
	case !t.options.KeepHash && seed == "":
	case !t.options.KeepHash:
		t.row("clusterip_hash_seed", Dropped, "", "all nodes derive the same seed from ip; --keep-hash takes it over")
	case seed != "":
		t.keep("clusterip_hash_seed", "hash_seed", seed, "")
	default:
		digest, known := t.digest()
		if !known {
			t.faults = append(t.faults, "--keep-hash: clusterip_hash_seed is not set, and cidr_netmask and broadcast, from which IPaddr2 "+
				"derives it, are not both set. Read the seed on a node (nft list ruleset, or iptables -t mangle -S), and set clusterip_hash_seed to it")
			return
		}
		t.add("hash_seed", fmt.Sprintf("0x%08x", binary.BigEndian.Uint32(digest[:4])), "as IPaddr2 derives it")
	}
}

// digest returns what IPaddr2 derives its MAC address and seed from (ip_init). The netmask, and for IPv4 the broadcast address, are known
// only if they are set: else they are those of the interface.
func (t *translation) digest() (digest [md5.Size]byte, known bool) {
	address, err := netip.ParseAddr(t.old["ip"])
	words := []string{address.String(), t.now["cidr_netmask"]}
	if address.Is4() {
		words = append(words, t.old["broadcast"])
	}
	return md5.Sum([]byte(strings.Join(words, " ") + "\n")), err == nil && !slices.Contains(words, "") //nolint:gosec // see above
}

// sharedMAC keeps a MAC address that was chosen, and with KeepHash the one that IPaddr2 derives.
func (t *translation) sharedMAC() {
	if mac := t.old["mac"]; mac != "" {
		if parsed, err := net.ParseMAC(mac); err == nil && parsed[0]&1 == 0 {
			t.refuse("mac", "it is not a group address, which IPaddr2 requires. Correct or remove it")
			return
		}
		t.sameMAC = true
		t.keep("mac", "mac", mac, "routers and switches may have it in static entries; if none has, leave it out")
		return
	}
	if !t.options.KeepHash {
		return
	}
	address, err := netip.ParseAddr(t.old["ip"])
	digest, known := t.digest()
	if err != nil || !known {
		t.remarks = append(t.remarks, "The present MAC address is not kept: IPaddr2 derives it from the netmask and the broadcast address, "+
			"which are not both set. To keep it, read it on a node (ip maddress) and set mac.")
		return
	}
	t.sameMAC = true
	t.add("mac", derivedMAC(digest, address).String(), "as IPaddr2 derives it")
}

// derivedMAC returns IPaddr2's MAC address: the first digits of a digest, the second of which it makes odd, so that it is a group address.
func derivedMAC(digest [md5.Size]byte, address netip.Addr) net.HardwareAddr {
	mac := net.HardwareAddr(slices.Clone(digest[:6]))
	if high := mac[0] >> 4; mac[0]&1 == 0 { // sed: ^\(.\)[02468aAcCeE] becomes \11
		mac[0] = high<<4 | 1
	}
	if address.Is6() {
		mac[0], mac[1] = 0x33, 0x33
	}
	return mac
}
