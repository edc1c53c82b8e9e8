package doctor

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"ocf-clusterip/internal/clusterip"
)

// firewallChecks look at what other rules there are.
func firewallChecks() []check {
	const group = "firewalls"
	return []check{
		{
			group, "firewall", "A packet that another rule drops does not reach its owner: it looks as if the node were dead.",
			hasNIC, func(s subject) answer {
				return s.judgeObstacles(func(o clusterip.Obstacle) bool { return !o.Untracks && !isFirewalld(o) })
			},
		},
		{
			group, "firewalld", "firewalld refuses whatever the zone of the interface does not let in.",
			hasNIC, func(s subject) answer {
				return s.judgeObstacles(func(o clusterip.Obstacle) bool { return !o.Untracks && isFirewalld(o) },
					"firewall-cmd --get-zone-of-interface="+s.nic.Name, "firewall-cmd --permanent --zone=ZONE --add-service=SERVICE && firewall-cmd --reload")
			},
		},
		{
			group, "notrack", "A connection that is not tracked is unknown: with drain it does not survive a move, and the match cluster drops it.",
			both(hasNIC, tracks),
			func(s subject) answer {
				return s.judgeObstacles(func(o clusterip.Obstacle) bool { return o.Untracks })
			},
		},
	}
}

func isFirewalld(o clusterip.Obstacle) bool { return strings.HasSuffix(o.Table, " firewalld") }

// judgeObstacles judges those of a kind. What to do about one is to look at it, unless more is said.
func (s subject) judgeObstacles(is func(clusterip.Obstacle) bool, do ...string) answer {
	if s.Obstacles.Err != nil {
		return cannotTell(s.Obstacles.Err, "nft list ruleset", "iptables-legacy-save")
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
			answers = append(answers, fail(fmt.Sprintf("%s keeps from conntrack: %s", where, what), commands...))
		case o.Untracks:
			answers = append(answers, warn(fmt.Sprintf("%s may keep from conntrack: %s", where, what), commands...))
		case o.Certain:
			answers = append(answers, fail(fmt.Sprintf("%s drops %s", where, what), commands...))
		default:
			answers = append(answers, warn(fmt.Sprintf("%s may drop %s", where, what), commands...))
		}
	}
	return all("nothing is in the way", answers...)
}

// lanChecks ask the network.
func lanChecks() []check {
	const group = "network"
	return []check{
		{
			group, "strangers", "Clients that hear several MACs for one address lose their connections whenever they hear the other one.",
			func(s subject) bool { return s.Strangers != nil }, judgeStrangers,
		},
		{
			group, "querier", "A switch that snoops forgets the members of a group when nobody asks for them, and then delivers to no node.",
			func(s subject) bool { return s.Querier.IPv4 != nil || s.Querier.IPv6 != nil }, judgeQuerier,
		},
		{
			group, "router", "Clients behind a router that has another MAC for the address reach one node only, or none.",
			func(s subject) bool { return s.Router != nil }, judgeRouter,
		},
	}
}

func judgeStrangers(s subject) answer {
	if s.Strangers.Err != nil {
		return cannotTell(s.Strangers.Err, "ip address show dev "+s.layout.NIC, fmt.Sprintf("arping -D -I %s %s   # and look who answers", s.layout.NIC, s.layout.Address()))
	}
	var answers []answer
	for _, stranger := range s.Strangers.Value {
		seen := fmt.Sprintf("%s says that it has %s, whose MAC is %s", stranger.MAC, stranger.Address, s.layout.MACs.Of(stranger.Address))
		isOf := func(mode clusterip.MACMode) bool {
			return stranger.MAC == clusterip.DerivedMAC(mode, s.layout.Address()) || stranger.MAC == clusterip.DerivedMAC(mode, stranger.Address)
		}
		if i := slices.IndexFunc(clusterip.MACModes(), isOf); i >= 0 {
			seen += fmt.Sprintf(": a node on which mac_mode=%s", clusterip.MACModes()[i])
		}
		if names := s.namesOf(stranger); len(names) > 0 {
			seen += fmt.Sprintf(" (it is %s, too)", strings.Join(names, ", "))
		}
		answers = append(answers, fail(seen,
			fmt.Sprintf("ip neighbour | grep -i %s   # who it is; then, there:", stranger.MAC),
			fmt.Sprintf("ocf-clusterip doctor --ip %s   # if it is a node of the cluster", stranger.Address),
			fmt.Sprintf("ip address delete %s/… dev …   # if it is none", stranger.Address)))
	}
	return all("nobody answers with another MAC", answers...)
}

// namesOf are the other addresses of a stranger.
func (s subject) namesOf(stranger clusterip.Stranger) []string {
	var names []string
	for _, n := range s.Around.Value.Neighbours {
		if n.MAC == stranger.MAC && n.Address != stranger.Address {
			names = append(names, n.Address.String())
		}
	}
	return names
}

// queryInterval is how often a querier asks (RFC 9776 section 8.2), and how long it may take to be sure that there is none.
const queryInterval = 125 * time.Second

func judgeQuerier(s subject) answer {
	judge := func(told *Told[bool], protocol string) answer {
		switch {
		case told == nil || told.Err == nil && told.Value:
			return ok("heard")
		case told.Err != nil:
			return cannotTell(told.Err, waitLonger)
		case s.Waited >= queryInterval:
			return fail(fmt.Sprintf("no %s querier was heard in %s", protocol, s.Waited), "# switch the querier on, at the router or the switch")
		case s.Waited > 0:
			return cannotTell(fmt.Errorf("no %s querier was heard in %s", protocol, s.Waited), waitLonger)
		default:
			return cannotTell(errors.New("nobody has listened for an "+protocol+" querier"), waitLonger)
		}
	}
	return all("a querier was heard", judge(s.Querier.IPv4, "IGMP"), judge(s.Querier.IPv6, "MLD"))
}

const waitLonger = "ocf-clusterip doctor --wait 130   # queriers ask every 125 s, unless told otherwise"

func judgeRouter(s subject) answer {
	address, _ := FirstIPv4(s.layout)
	do := []string{
		fmt.Sprintf("# on the router %s: look at its ARP entry for %s, and clear it;", s.RouterAt, address),
		fmt.Sprintf("# if it does not take %s (RFC 1812, section 3.3.2), enter it there by hand, or take", s.layout.MACs.IPv4),
		s.update("mac_mode=unicast   # with the resource disabled"),
	}
	told := s.Router.Value
	switch {
	case s.Router.Err != nil:
		return cannotTell(s.Router.Err, do[0])
	case !told.Direct:
		return cannotTell(fmt.Errorf("router %s does not answer pings", s.RouterAt), do[0])
	case len(told.To) == 0 && told.Missed:
		return cannotTell(fmt.Errorf("router %s answers pings, but not each: it may limit them", s.RouterAt), do[0])
	case len(told.To) == 0:
		return fail(fmt.Sprintf("router %s answers this node, but its answer to %s does not go to the cluster MAC", s.RouterAt, address), do...)
	case told.To[0] != s.layout.MACs.IPv4:
		return fail(fmt.Sprintf("router %s has %s for %s, not %s", s.RouterAt, told.To[0], address, s.layout.MACs.IPv4), do...)
	default:
		return ok("%s has %s for %s", s.RouterAt, told.To[0], address)
	}
}
