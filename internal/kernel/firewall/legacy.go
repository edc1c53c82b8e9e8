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
)

// readLegacy reads the tables of iptables-legacy that exist. It first reads the kernel's list of them: the programs would load the kernel's
// modules.
func readLegacy(ctx context.Context, layout clusterip.Layout) ([]table, error) {
	var tables []table
	for _, version := range []struct {
		family  byte
		is      func(netip.Addr) bool
		names   string
		program string
	}{
		{unix.NFPROTO_IPV4, netip.Addr.Is4, "/proc/thread-self/net/ip_tables_names", xtables.Legacy},
		{unix.NFPROTO_IPV6, netip.Addr.Is6, "/proc/thread-self/net/ip6_tables_names", "ip6tables-legacy"},
	} {
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
			var lines []string
			chains, err := program.ListChains(name)
			for _, c := range chains {
				listed, listErr := program.List(name, c)
				lines, err = append(lines, listed...), errors.Join(err, listErr)
			}
			if err != nil {
				return nil, fmt.Errorf("list the rules of %s %s: %w", version.program, name, err)
			}
			tables = append(tables, legacyTable(version.family, version.program, name, lines))
		}
	}
	return tables, nil
}

// legacyTable makes a table of what `iptables -S` lists.
func legacyTable(family byte, program, name string, lines []string) table {
	t := table{name: program + " " + name}
	// As in include/uapi/linux/netfilter_ipv4.h.
	priority, isKnown := map[string]int32{"raw": -300, "mangle": -150, natChain: -100, "filter": 0, "security": 50}[name]
	for _, line := range lines {
		words := xtables.ParseRule(line)
		const shortest = 2
		if len(words) < shortest {
			continue
		}
		i := slices.IndexFunc(t.chains, func(c chain) bool { return c.name == words[1] })
		if i < 0 {
			i = len(t.chains)
			c := chain{name: words[1]}
			at := map[string]place{"PREROUTING": atPrerouting, "INPUT": atInput, "FORWARD": atForward}[c.name]
			if isKnown && at != nowhere && (name != natChain || at == atPrerouting) {
				c.hook = &hook{
					family: family, place: at, priority: priority, kind: name, drops: words[0] == "-P" && slices.Contains(words, "DROP"),
					showWith: program + " -t " + name + " -nvL %s",
				}
			}
			t.chains = append(t.chains, c)
		}
		if words[0] == "-A" {
			t.chains[i].rules = append(t.chains[i].rules, legacyRule(words))
		}
	}
	return t
}

// legacyRule is a line of `iptables -S`, in words.
type legacyRule xtables.Rule

func (r legacyRule) String() string { return "rule " + strings.Join(r, " ") }

// judge implements rule. It ignores our own rules, and jumps to our own chains.
func (r legacyRule) judge(p packet) []outcome {
	words := xtables.Rule(r)
	target, gotoTarget := words.Option("-j"), words.Option("-g")
	so := p.conditions(words.Spec())
	if words.IsStamped() || strings.HasPrefix(target, ours) || so == no {
		return nil
	}
	does, known := targetAction(target)
	switch {
	case gotoTarget != "":
		return []outcome{{match: so, action: gotoChain, chain: gotoTarget}}
	case target == "CT" && slices.Contains(words, "--notrack"):
		does = untrack
	case !known:
		return []outcome{{match: so, action: jump, chain: target}}
	case does == redirect:
		return []outcome{{match: so, action: redirect, to: legacyDestination(words)}}
	case does == goOn:
		return nil
	}
	return []outcome{{match: so, action: does}}
}

// legacyDestination reads 172.17.0.2:80, [2001:db8::2]:80, either without a port, or the port of REDIRECT. Ranges are left open.
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

// conditions judges all up to the target.
func (p packet) conditions(words []string) match {
	so, inverted := yes, false
	for i, word := range words {
		switch {
		case word == "-j" || word == "-g":
			return so
		case word == "!":
			inverted = true
		case i > 0 && words[i-1] == "--comment": // any text
		case strings.HasPrefix(word, "-"):
			m := p.option(word, append(slices.Clone(words[i+1:]), "", ""))
			if inverted {
				m = not(m)
			}
			so, inverted = min(so, m), false
		}
	}
	return so
}

// option judges a condition as iptables lists it; words follow its name.
func (p packet) option(name string, words []string) match {
	text := words[0]
	has := func(value string) bool { return slices.Contains(strings.Split(text, ","), value) }
	switch name {
	case "-d":
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			return perhaps
		}
		return is(prefix.Contains(p.to))
	case "-i":
		return is(matchesName(text, "+", p.nic))
	case "-p": // a protocol without a number here has a name in /etc/protocols, and is that of no service
		number, known := protocolNumber(text)
		return is(text == "all" || known && (number == 0 || number == p.protocol))
	case "--dport", "--dports":
		return p.asksForOne(text)
	case "--state", "--ctstate":
		return is(has("NEW") || p.redirected && has("DNAT"))
	case "--dst-type":
		if p.forwarded {
			return perhaps
		}
		return is(has("LOCAL"))
	case "--tcp-flags": // --syn is listed so, too
		mask, maskOK := tcpFlags(text)
		wanted, wantedOK := tcpFlags(words[1])
		if !maskOK || !wantedOK {
			return perhaps
		}
		return is(p.protocol == unix.IPPROTO_TCP && syn&mask == wanted)
	case "--icmp-type", "--icmpv6-type": // with the code 0, or any
		kind, code, _ := strings.Cut(text, "/")
		return is(text == "any" || kind == strconv.Itoa(int(p.transport[0].bits)) && (code == "" || code == "0"))
	case "-m":
		switch text {
		case "tcp", "udp", "udplite", "sctp", "dccp", "icmp", "icmp6", "multiport", "conntrack", "state", "addrtype", "comment":
			return yes // the options that follow are its conditions
		}
		if isForSome(text) {
			return some
		}
		return perhaps
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

// asksForOne judges a list such as 80, 80:90 or 80,443.
func (p packet) asksForOne(list string) match {
	found := no
	for ports := range strings.SplitSeq(list, ",") {
		first, last, isRange := strings.Cut(ports, ":")
		if !isRange {
			last = first
		}
		from, fromErr := strconv.ParseUint(first, 10, 16)
		to, toErr := strconv.ParseUint(last, 10, 16)
		if fromErr != nil || toErr != nil {
			return perhaps
		}
		found = max(found, p.asksFor(uint16(from), uint16(to)))
	}
	return found
}
