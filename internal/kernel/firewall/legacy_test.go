package firewall

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/kernel/xtables"
	"ocf-clusterip/internal/services"
)

// web is the first packet to a web server at the address; ping is one to it.
func web() probe  { return first(services.Service{Protocol: "tcp", First: 80, Last: 80}) }
func ping() probe { return first(services.ICMP) }

func first(service services.Service) probe {
	all := probes(clusterip.Layout{
		Prefixes: []netip.Prefix{netip.MustParsePrefix("192.168.10.3/24")}, NIC: "eth0", NICIndex: 2, Services: []services.Service{service},
	})
	return all[0]
}

func TestLegacyRules(t *testing.T) {
	for line, want := range map[string][]outcome{
		"-A INPUT -j DROP": {{match: yes, action: drop}},
		"-A INPUT -d 192.168.10.0/24 -i eth0 -j REJECT":                                         {{match: yes, action: drop}},
		"-A INPUT ! -i eth0 -j DROP":                                                            nil,
		"-A INPUT -i eth+ -j DROP":                                                              {{match: yes, action: drop}},
		"-A INPUT -i eth1 -j DROP":                                                              nil,
		"-A INPUT -p tcp -m tcp --dport 80 -j ACCEPT":                                           {{match: yes, action: accept}},
		"-A INPUT -p tcp -m tcp --dport 22:90 -j ACCEPT":                                        {{match: yes, action: accept}},
		"-A INPUT -p tcp -m multiport --dports 22,443 -j ACCEPT":                                nil,
		"-A INPUT -p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN -j DROP":                        {{match: yes, action: drop}},
		"-A INPUT -p tcp -m tcp ! --tcp-flags FIN,SYN,RST,ACK SYN -m state --state NEW -j DROP": nil,
		"-A INPUT -p tcp -m tcp --tcp-flags FIN,SYN,RST,PSH,ACK,URG NONE -j DROP":               nil,
		"-A INPUT -p tcp -m tcp --tcp-flags SYN,XYZ SYN -j DROP":                                {{match: perhaps, action: drop}},
		"-A INPUT -p tcp -m tcp --tcp-flags":                                                    nil,
		"-A INPUT -p udp -j DROP":                                                               nil,
		"-A INPUT -p 6 -j DROP":                                                                 {{match: yes, action: drop}},
		"-A INPUT -s 192.0.2.0/24 -j DROP":                                                      {{match: some, action: drop}},
		"-A INPUT ! -s 192.0.2.0/24 -j DROP":                                                    {{match: perhaps, action: drop}},
		"-A INPUT -m conntrack --ctstate INVALID -j DROP":                                       nil,
		"-A INPUT -m state --state NEW,RELATED -j DROP":                                         {{match: yes, action: drop}},
		"-A INPUT -m limit --limit 5/sec -j ACCEPT":                                             {{match: some, action: accept}},
		"-A INPUT -m something --strange 5 -j DROP":                                             {{match: perhaps, action: drop}},
		`-A INPUT -m comment --comment "-i eth1" -j DROP`:                                       {{match: yes, action: drop}},
		"-A INPUT -j mine":                                                                      {{match: yes, action: jump, chain: "mine"}},
		"-A INPUT -g mine":                                                                      {{match: yes, action: jumpForGood, chain: "mine"}},
		"-A mine -j RETURN":                                                                     {{match: yes, action: comeBack}},
		"-A PREROUTING -d 192.168.10.3/32 -j CT --notrack":                                      {{match: yes, action: untrack}},
		"-A PREROUTING -d 192.168.10.3/32 -j CT --helper ftp":                                   nil,
		"-A INPUT -j LOG":                                                                       nil,
		"-A INPUT":                                                                              nil,
		"-A PREROUTING -d 192.168.10.3/32 -j clusterip-192.168.10.3":                            nil,
		`-A INPUT -d 192.168.10.3/32 -m comment --comment "1 ip=192.168.10.3/24" -j DROP`:       nil,
	} {
		if diff := cmp.Diff(want, legacyRule(xtables.ParseRule(line)).judge(web()), cmpopts.EquateComparable(outcome{})); diff != "" {
			t.Errorf("%s (-want +got):\n%s", line, diff)
		}
	}
}

func TestLegacyRulesAboutPings(t *testing.T) {
	for line, want := range map[string][]outcome{
		"-A INPUT -p icmp -m icmp --icmp-type any -j ACCEPT": {{match: yes, action: accept}},
		"-A INPUT -p icmp -m icmp --icmp-type 8 -j ACCEPT":   {{match: yes, action: accept}},
		"-A INPUT -p icmp -m icmp --icmp-type 8/0 -j ACCEPT": {{match: yes, action: accept}},
		"-A INPUT -p icmp -m icmp --icmp-type 8/1 -j ACCEPT": nil,
		"-A INPUT -p icmp -m icmp --icmp-type 3/4 -j ACCEPT": nil,
	} {
		if diff := cmp.Diff(want, legacyRule(xtables.ParseRule(line)).judge(ping()), cmpopts.EquateComparable(outcome{})); diff != "" {
			t.Errorf("%s (-want +got):\n%s", line, diff)
		}
	}
}

// What a packet meets first, ends it; what may let it go makes the rest uncertain.
func TestWalk(t *testing.T) {
	rules := func(lines ...string) []rule {
		var all []rule
		for _, line := range lines {
			all = append(all, legacyRule(xtables.ParseRule(line)))
		}
		return all
	}
	input := func(drops bool, lines ...string) chain {
		return chain{name: "INPUT", rules: rules(lines...), hook: &hook{sees: func(probe) bool { return true }, drops: drops, showWith: "show %s"}}
	}
	for name, row := range map[string]struct {
		chains []chain
		want   []string // "!" marks what is certain
	}{
		"nothing":                             {[]chain{input(false)}, nil},
		"the policy":                          {[]chain{input(true)}, []string{"!policy drop"}},
		"the policy, after a welcome":         {[]chain{input(true, "-A INPUT -p tcp -j ACCEPT")}, nil},
		"the policy, after a welcome to some": {[]chain{input(true, "-A INPUT -s 192.0.2.0/24 -j ACCEPT")}, []string{"policy drop"}},
		"the policy, after a doubt":           {[]chain{input(true, "-A INPUT -m x --y -j ACCEPT")}, []string{"policy drop"}},
		"a block list":                        {[]chain{input(false, "-A INPUT -s 192.0.2.0/24 -j DROP")}, nil},
		"a doubt, then for sure":              {[]chain{input(false, "-A INPUT -m x --y -j DROP", "-A INPUT -j DROP")}, []string{"rule -A INPUT -m x --y -j DROP", "!rule -A INPUT -j DROP"}},
		"a chain that drops":                  {[]chain{input(false, "-A INPUT -j c"), {name: "c", rules: rules("-A c -j DROP")}}, []string{"!rule -A c -j DROP"}},
		"a chain that drops what some send":   {[]chain{input(false, "-A INPUT -s 192.0.2.0/24 -j c"), {name: "c", rules: rules("-A c -j DROP")}}, nil},
		"a chain that returns":                {[]chain{input(true, "-A INPUT -j c"), {name: "c", rules: rules("-A c -j RETURN", "-A c -j ACCEPT")}}, []string{"!policy drop"}},
		"a chain that may accept":             {[]chain{input(true, "-A INPUT -j c"), {name: "c", rules: rules("-A c -m x --y -j ACCEPT")}}, []string{"policy drop"}},
		"a chain that is left for good":       {[]chain{input(true, "-A INPUT -g c", "-A INPUT -j ACCEPT"), {name: "c"}}, []string{"!policy drop"}},
		"a chain that there is not":           {[]chain{input(true, "-A INPUT -j c")}, []string{"policy drop"}},
		"a ring":                              {[]chain{input(false, "-A INPUT -j c"), {name: "c", rules: rules("-A c -j c")}}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, o := range inTheWay([]table{{name: "filter", chains: row.chains}}, []probe{web()}, netip.Addr.IsLoopback) {
				mark := ""
				if o.Certain {
					mark = "!"
				}
				got = append(got, mark+o.Rule)
			}
			if !slices.Equal(got, row.want) {
				t.Errorf("%q, want %q", got, row.want)
			}
		})
	}
}

// With everything shared, nobody has said that there is a service of UDP.
func TestWhatIsAsked(t *testing.T) {
	var names []string
	for _, p := range probes(clusterip.Layout{Prefixes: []netip.Prefix{netip.MustParsePrefix("192.168.10.3/24"), netip.MustParsePrefix("2001:db8::3/64")}}) {
		if !p.spare {
			names = append(names, p.name)
		}
	}
	want := []string{"tcp to 192.168.10.3", "ARP requests for 192.168.10.3", "tcp to 2001:db8::3", "neighbour discovery to 2001:db8::3"}
	if !slices.Equal(names, want) {
		t.Errorf("%q", names)
	}
}

func FuzzLegacyRule(f *testing.F) {
	f.Add(`-A INPUT -d 192.168.10.3/32 -p tcp -m multiport --dports 22,80:90 ! -s 10.0.0.0/8 -j DROP`)
	f.Add(`-A INPUT -g x -j`)
	f.Fuzz(func(t *testing.T, line string) {
		for _, o := range legacyRule(xtables.ParseRule(line)).judge(web()) {
			if o.match == no {
				t.Errorf("%q: an outcome that does not happen", line)
			}
		}
	})
}
