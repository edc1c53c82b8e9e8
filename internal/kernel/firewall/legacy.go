package firewall

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/kernel/xtables"
	"ocf-clusterip/internal/services"
)

// Where the kernel says which tables iptables-legacy has. Without asking for them nothing is loaded.
const (
	tables4 = "/proc/thread-self/net/ip_tables_names"
	tables6 = "/proc/thread-self/net/ip6_tables_names"
)

// readLegacy reads what iptables-legacy has laid, if anything. Its tables see packets before those of nf_tables of the same priority.
func readLegacy(ctx context.Context, layout clusterip.Layout) ([]table, error) {
	var tables []table
	for _, version := range []struct {
		is      func(netip.Addr) bool
		names   string
		program string
	}{{netip.Addr.Is4, tables4, xtables.Legacy}, {netip.Addr.Is6, tables6, "ip6tables-legacy"}} {
		names, err := os.ReadFile(version.names)
		if errors.Is(err, fs.ErrNotExist) || !layout.Has(version.is) || strings.TrimSpace(string(names)) == "" {
			continue
		}
		if err != nil {
			return nil, err
		}
		program, err := xtables.Open(ctx, version.program)
		if err != nil {
			return nil, err
		}
		for name := range strings.FieldsSeq(string(names)) {
			read, err := readLegacyTable(program, version.program, name, version.is)
			if err != nil {
				return nil, err
			}
			tables = append(tables, read)
		}
	}
	return tables, nil
}

func readLegacyTable(program *xtables.Program, programName, name string, is func(netip.Addr) bool) (table, error) {
	t := table{name: programName + " " + name}
	// As in include/uapi/linux/netfilter_ipv4.h.
	priority, known := map[string]int64{"raw": -300, "mangle": -150, natChain: -100, "filter": 0, "security": 50}[name]
	if !known {
		return t, nil
	}
	chains, err := program.ListChains(name)
	if err != nil {
		return t, fmt.Errorf("list the chains of %s: %w", t.name, err)
	}
	for _, chainName := range chains {
		lines, err := program.List(name, chainName)
		if err != nil {
			return t, fmt.Errorf("list the rules of %s %s: %w", t.name, chainName, err)
		}
		c := chain{name: chainName}
		at, isHook := map[string]int{"PREROUTING": atPrerouting, "INPUT": atInput, "FORWARD": atForward}[chainName]
		if isHook && (name != natChain || at == atPrerouting) {
			c.hook = &hook{
				sees:     func(p probe) bool { return !p.arp && is(p.to) && meets(at, p) && (name != natChain || !p.redirected) },
				order:    int64(at)*ordersPerHook + priority - lowestPriority,
				showWith: programName + " -t " + name + " -nvL %s",
			}
		}
		for _, line := range lines {
			if c.hook != nil && strings.HasPrefix(line, "-P ") {
				c.hook.drops = strings.HasSuffix(line, " DROP")
			}
			if strings.HasPrefix(line, "-A ") {
				c.rules = append(c.rules, legacyRule(xtables.ParseRule(line)))
			}
		}
		t.chains = append(t.chains, c)
	}
	return t, nil
}

// legacyRule is a line of `iptables -S`, in words.
type legacyRule xtables.Rule

func (r legacyRule) String() string { return "rule " + strings.Join(r, " ") }

// judge implements rule. Our own rules, and jumps to our own chains, are passed over.
func (r legacyRule) judge(p probe) []outcome {
	words := xtables.Rule(r)
	so := yes
	spec := words.Spec()
	inverted := false
	for i := 0; i < len(spec); i++ {
		word := spec[i]
		if word == "!" {
			inverted = true
			continue
		}
		if !strings.HasPrefix(word, "-") {
			continue
		}
		if word == "-j" || word == "-g" {
			break
		}
		m := p.option(word, spec[i+1:])
		if inverted {
			m = not(m)
		}
		so, inverted = min(so, m), false
		if word == "--comment" { // whose text may be anything
			i++
		}
	}
	target := words.Option("-j")
	switch {
	case words.IsStamped() || strings.HasPrefix(target, ours) || so == no:
		return nil
	case words.Option("-g") != "":
		return []outcome{{match: so, action: jumpForGood, chain: words.Option("-g")}}
	case target == "DROP" || target == "REJECT" || target == "TARPIT":
		return []outcome{{match: so, action: drop}}
	case target == "DNAT" || target == "REDIRECT":
		return []outcome{{match: so, action: redirect, to: legacyDestination(words)}}
	case target == "ACCEPT" || target == "NFQUEUE" || target == "QUEUE":
		return []outcome{{match: so, action: accept}}
	case target == "RETURN":
		return []outcome{{match: so, action: comeBack}}
	case target == "NOTRACK" || target == "CT" && slices.Contains(words, "--notrack"):
		return []outcome{{match: so, action: untrack}}
	case words.LetsOn() || target == "CT":
		return nil
	default:
		return []outcome{{match: so, action: jump, chain: target}}
	}
}

// legacyDestination reads 172.17.0.2:80, [2001:db8::2]:80, either without a port, or the one of REDIRECT. What has ranges is left open.
func legacyDestination(words xtables.Rule) destination {
	if words.Option("-j") == "REDIRECT" {
		port, _ := strconv.ParseUint(words.Option("--to-ports"), 10, 16)
		return destination{here: true, port: uint16(port)}
	}
	text := words.Option("--to-destination")
	if both, err := netip.ParseAddrPort(text); err == nil {
		return destination{host: both.Addr(), port: both.Port()}
	}
	host, _ := netip.ParseAddr(strings.Trim(text, "[]"))
	return destination{host: host}
}

// option judges a condition as iptables lists it; words are all that follow its name.
func (p *probe) option(name string, words []string) match {
	word := func(i int) string {
		if i < len(words) {
			return words[i]
		}
		return ""
	}
	text := word(0)
	is := func(it bool) match {
		if it {
			return yes
		}
		return no
	}
	switch name {
	case "-d":
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			return perhaps
		}
		return is(prefix.Contains(p.to))
	case "-i":
		stem, open := strings.CutSuffix(text, "+")
		return is(open && strings.HasPrefix(p.nic, stem) || text == p.nic)
	case "-p":
		return p.isProtocol(text)
	case "--dport", "--dports":
		return p.isPort(text)
	case "--state", "--ctstate":
		states := strings.Split(text, ",")
		return is(slices.Contains(states, "NEW") || p.redirected && slices.Contains(states, "DNAT"))
	case "--dst-type":
		if p.forwarded {
			return perhaps
		}
		return is(slices.Contains(strings.Split(text, ","), "LOCAL"))
	case "--tcp-flags": // --syn is listed so, too
		mask, maskOK := tcpFlags(text)
		wanted, wantedOK := tcpFlags(word(1))
		if !maskOK || !wantedOK {
			return perhaps
		}
		return is(p.protocol == unix.IPPROTO_TCP && syn&mask == wanted)
	case "--icmp-type", "--icmpv6-type": // with the code 0, or any
		kind, code, _ := strings.Cut(text, "/")
		return is(text == "any" || kind == strconv.Itoa(int(p.icmpType)) && (code == "" || code == "0"))
	case "-m":
		if slices.Contains([]string{"limit", "hashlimit", "recent", "connlimit", "statistic", "geoip", "mac", "iprange", "quota", "time"}, text) {
			return some
		}
		return yes // its conditions follow
	case "--comment":
		return yes
	case "-s", "--sport", "--sports", "--mac-source", "--src-range":
		return some
	default:
		return perhaps
	}
}

// tcpFlags reads a list of flags as iptables lists it.
func tcpFlags(text string) (flags uint8, ok bool) {
	bits := map[string]uint8{"FIN": 0x01, "SYN": syn, "RST": 0x04, "PSH": 0x08, "ACK": 0x10, "URG": 0x20, "ALL": 0x3f, "NONE": 0}
	for name := range strings.SplitSeq(text, ",") {
		bit, known := bits[name]
		if !known {
			return 0, false
		}
		flags |= bit
	}
	return flags, true
}

func (p *probe) isProtocol(text string) match {
	numbers := map[string]uint8{"icmp": unix.IPPROTO_ICMP, "icmpv6": unix.IPPROTO_ICMPV6, "ipv6-icmp": unix.IPPROTO_ICMPV6}
	number, known := numbers[text]
	if !known && slices.Contains(services.Protocols(), text) {
		number, known = protocolNumber(text), true
	}
	if parsed, err := strconv.ParseUint(text, 10, 8); err == nil {
		number, known = uint8(parsed), true
	}
	switch {
	case text == "all" || text == "0":
		return yes
	case known && number == p.protocol:
		return yes
	case known:
		return no
	default: // one that has a name in /etc/protocols and is none of a service
		return no
	}
}

// isPort reads 80, 80:90 or 80,443.
func (p *probe) isPort(text string) match {
	if p.port == 0 {
		return perhaps
	}
	for ports := range strings.SplitSeq(text, ",") {
		first, last, isRange := strings.Cut(ports, ":")
		if !isRange {
			last = first
		}
		from, fromErr := strconv.ParseUint(first, 10, 16)
		to, toErr := strconv.ParseUint(last, 10, 16)
		if fromErr != nil || toErr != nil {
			return perhaps
		}
		if uint16(from) <= p.port && p.port <= uint16(to) {
			return yes
		}
	}
	return no
}
