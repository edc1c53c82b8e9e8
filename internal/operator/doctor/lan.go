package doctor

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"ocf-clusterip/internal/clusterip"
)

// firewallChecks check the rules of other firewalls on this node.
func firewallChecks() []check {
	const group = "firewalls"
	return []check{
		{
			group, "firewall", "A packet that another rule drops is never answered: to the client the node seems to be down.",
			hasNIC, func(s subject) answer {
				return s.judgeObstacles(func(o Obstacle) bool { return !o.Untracks && !isFirewalld(o) })
			},
		},
		{
			group, "firewalld", "firewalld rejects all packets that the zone of the interface does not allow.",
			hasNIC, func(s subject) answer {
				return s.judgeObstacles(func(o Obstacle) bool { return !o.Untracks && isFirewalld(o) },
					"firewall-cmd --get-zone-of-interface="+s.nic.Name,
					"firewall-cmd --permanent --zone=ZONE --add-service=SERVICE && firewall-cmd --reload")
			},
		},
		{
			group, "flush",
			"When these rules are loaded anew, the tables of the address are removed too. Until the next monitor, the node answers no client or, " +
				"without early drop, those of other nodes as well.",
			hasNIC, judgeFlushes,
		},
		{
			group, "notrack", "A connection without a conntrack entry does not survive a hand-over, and the match cluster drops it.",
			both(hasNIC, tracks),
			func(s subject) answer {
				return s.judgeObstacles(func(o Obstacle) bool { return o.Untracks })
			},
		},
	}
}

func isFirewalld(o Obstacle) bool { return strings.HasSuffix(o.Table, " firewalld") }

// judgeObstacles judges obstacles of one kind. The command for each is the one that shows it, and those in do.
func (s subject) judgeObstacles(is func(Obstacle) bool, do ...string) answer {
	if s.Obstacles.Err != nil {
		return unknown(s.Obstacles.Err, "nft list ruleset", "iptables-legacy-save")
	}
	var answers []answer
	for _, o := range s.Obstacles.Value {
		if !is(o) {
			continue
		}
		commands := append([]string{o.Show}, do...)
		what := strings.Join(o.Packets, ", ")
		where := fmt.Sprintf("%s, chain %s, %s", o.Table, o.Chain, o.Rule)
		switch {
		case o.Untracks && o.Certain:
			answers = append(answers, fail(fmt.Sprintf("%s: exempts from conntrack %s", where, what), commands...))
		case o.Untracks:
			answers = append(answers, warn(fmt.Sprintf("%s: may exempt from conntrack %s", where, what), commands...))
		case o.Certain:
			answers = append(answers, fail(fmt.Sprintf("%s: drops %s", where, what), commands...))
		default:
			answers = append(answers, warn(fmt.Sprintf("%s: may drop %s", where, what), commands...))
		}
	}
	return all("no such rule", answers...)
}

// lanChecks check the answers of the network.
func lanChecks() []check {
	const group = "network"
	return []check{
		{
			group, "address-conflict", "Another host uses the shared address. A client that gets its MAC loses its connections.",
			func(s subject) bool { return s.Conflicts != nil }, judgeConflicts,
		},
		{
			group, "querier",
			"Without a querier, a switch with snooping drops the nodes from the group after some minutes, and then delivers to no node.",
			func(s subject) bool { return s.Querier.IPv4 != nil || s.Querier.IPv6 != nil }, judgeQuerier,
		},
		{
			group, "router", "Clients behind a router that has another MAC for the address reach one node only, or none.",
			func(s subject) bool { return s.Router != nil }, judgeRouter,
		},
	}
}

func judgeConflicts(s subject) answer {
	if s.Conflicts.Err != nil {
		return unknown(s.Conflicts.Err, "ip address show dev "+s.layout.NIC,
			fmt.Sprintf("arping -D -I %s %s   # shows who answers", s.layout.NIC, s.layout.Address()))
	}
	var answers []answer
	for _, other := range s.Conflicts.Value {
		seen := fmt.Sprintf("a host with MAC %s has %s too (the shared MAC is %s)", other.MAC, other.Address, s.layout.MACs.Of(other.Address))
		isOf := func(mode clusterip.MACMode) bool {
			return other.MAC == clusterip.DerivedMAC(mode, s.layout.Address()) || other.MAC == clusterip.DerivedMAC(mode, other.Address)
		}
		if i := slices.IndexFunc(clusterip.MACModes(), isOf); i >= 0 {
			seen += fmt.Sprintf(": a node with mac_mode=%s", clusterip.MACModes()[i])
		}
		if addresses := s.addressesOf(other); len(addresses) > 0 {
			seen += fmt.Sprintf("; it also has %s", strings.Join(addresses, ", "))
		}
		if holder, found := s.cib.ipaddr2(other.Address); found {
			seen += fmt.Sprintf("; %s of ocf:heartbeat:IPaddr2 has it in this cluster", holder.ID())
			answers = append(answers, fail(seen, s.replace(holder)...))
			continue
		}
		answers = append(answers, fail(seen,
			fmt.Sprintf("ip neighbour | grep -i %s   # shows which host it is; on that host:", other.MAC),
			fmt.Sprintf("ocf-clusterip doctor --ip %s   # if it is a node of the cluster", other.Address),
			fmt.Sprintf("ip address delete %s/… dev …   # if it is not", other.Address)))
	}
	return all("no host answers with another MAC", answers...)
}

// addressesOf returns the other addresses of a host.
func (s subject) addressesOf(host clusterip.Conflict) []string {
	var addresses []string
	for _, n := range s.Around.Value.Neighbours {
		if n.MAC == host.MAC && n.Address != host.Address {
			addresses = append(addresses, n.Address.String())
		}
	}
	return addresses
}

// queryInterval is the time between two queries of a querier (RFC 9776 section 8.2). Without a query for so long there is no querier.
const queryInterval = 125 * time.Second

func judgeQuerier(s subject) answer {
	judge := func(heard *Fact[bool], protocol string) answer {
		silent := fmt.Errorf("no %s query was received in %s", protocol, s.Waited)
		switch {
		case heard == nil || heard.Err == nil && heard.Value:
			return ok("heard")
		case heard.Err != nil:
			return unknown(heard.Err, waitLonger)
		case s.Waited >= queryInterval:
			return fail(silent.Error(), "# enable a querier on the router or the switch")
		case s.Waited > 0:
			return unknown(silent, waitLonger)
		default:
			return unknown(errors.New("did not listen for an "+protocol+" querier"), waitLonger)
		}
	}
	return all("queries were received", judge(s.Querier.IPv4, "IGMP"), judge(s.Querier.IPv6, "MLD"))
}

const waitLonger = "ocf-clusterip doctor --wait 130   # queriers send every 125 s by default"

func judgeRouter(s subject) answer {
	address, _ := FirstIPv4(s.layout)
	do := []string{
		fmt.Sprintf("# on the router %s: show its ARP entry for %s, and clear it;", s.RouterAt, address),
		fmt.Sprintf("# if it does not accept %s (RFC 1812, section 3.3.2), add a static entry there, or use", s.layout.MACs.IPv4),
		s.update("mac_mode=unicast   # with the resource disabled"),
	}
	answer := s.Router.Value
	switch {
	case s.Router.Err != nil:
		return unknown(s.Router.Err, do[0])
	case !answer.Direct:
		return unknown(fmt.Errorf("router %s does not answer pings", s.RouterAt), do[0])
	case len(answer.To) == 0 && answer.Missed:
		return unknown(fmt.Errorf("router %s answers some pings only: it may limit its answers", s.RouterAt), do[0])
	case len(answer.To) == 0:
		return fail(fmt.Sprintf("router %s answers this node, but its answer to %s does not go to the shared MAC", s.RouterAt, address), do...)
	case answer.To[0] != s.layout.MACs.IPv4:
		return fail(fmt.Sprintf("router %s has %s for %s, not %s", s.RouterAt, answer.To[0], address, s.layout.MACs.IPv4), do...)
	default:
		return ok("%s has %s for %s", s.RouterAt, answer.To[0], address)
	}
}
