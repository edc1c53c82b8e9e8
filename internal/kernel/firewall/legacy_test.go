package firewall

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sys/unix"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/kernel/xtables"
	"ocf-clusterip/internal/services"
)

// web is the first packet to a web server at the address; ping is one to it.
func web() packet  { return first(services.Service{Protocol: "tcp", First: 80, Last: 80}) }
func ping() packet { return first(services.ICMP) }

func first(service services.Service) packet {
	all := packets(clusterip.Layout{
		Prefixes: []netip.Prefix{netip.MustParsePrefix("192.168.10.3/24")}, NIC: "eth0", NICIndex: 2, Services: []services.Service{service},
	}, false)
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
		"-A INPUT -p tcp -m tcp --dport 80,x -j DROP":                                           {{match: perhaps, action: drop}},
		"-A INPUT -d nowhere -j DROP":                                                           {{match: perhaps, action: drop}},
		"-A INPUT -m addrtype --dst-type LOCAL -j DROP":                                         {{match: yes, action: drop}},
		"-A INPUT -m socket -j ACCEPT":                                                          {{match: perhaps, action: accept}},
		"-A INPUT -m limit --limit 5/sec -j ACCEPT":                                             {{match: some, action: accept}},
		"-A INPUT -m something --strange 5 -j DROP":                                             {{match: perhaps, action: drop}},
		`-A INPUT -m comment --comment "-i eth1" -j DROP`:                                       {{match: yes, action: drop}},
		"-A INPUT -j mine":                                                                      {{match: yes, action: jump, chain: "mine"}},
		"-A INPUT -g mine":                                                                      {{match: yes, action: gotoChain, chain: "mine"}},
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

// A certain end hides what follows; what may let the packet go makes the rest uncertain.
func TestWalk(t *testing.T) {
	const (
		policy = "-P INPUT DROP\n"
		c      = "-N c\n"
		toC    = "-A INPUT -j c\n"
		toNAT  = "-t nat\n-A PREROUTING -p tcp -m tcp --dport 80 -j "
	)
	for name, row := range map[string]struct {
		text string
		want []string // "!" marks what is certain
	}{
		"nothing":                             {"-P INPUT ACCEPT", nil},
		"the policy":                          {policy, []string{"!policy drop"}},
		"the policy, after a welcome":         {policy + "-A INPUT -p tcp -j ACCEPT", nil},
		"the policy, after a welcome to some": {policy + "-A INPUT -s 192.0.2.0/24 -j ACCEPT", []string{"policy drop"}},
		"the policy, after a doubt":           {policy + "-A INPUT -m x --y -j ACCEPT", []string{"policy drop"}},
		"a block list":                        {"-A INPUT -s 192.0.2.0/24 -j DROP", nil},
		"a doubt, then for sure": {
			"-A INPUT -m x --y -j DROP\n-A INPUT -j DROP", []string{"rule -A INPUT -m x --y -j DROP", "!rule -A INPUT -j DROP"},
		},
		"a chain that drops":                {c + toC + "-A c -j DROP", []string{"!rule -A c -j DROP"}},
		"a chain that drops what some send": {c + "-A INPUT -s 192.0.2.0/24 -j c\n-A c -j DROP", nil},
		"a chain that returns":              {policy + c + toC + "-A c -j RETURN\n-A c -j ACCEPT", []string{"!policy drop"}},
		"a chain that may accept":           {policy + c + toC + "-A c -m x --y -j ACCEPT", []string{"policy drop"}},
		"a chain that may not return":       {policy + c + "-A INPUT -g c\n-A INPUT -j ACCEPT", []string{"!policy drop"}},
		"an unknown target":                 {policy + toC, []string{"rule -A INPUT -j c", "policy drop"}},
		"a ring":                            {c + toC + "-A c -j c", nil},
		"what is forwarded":                 {"-P FORWARD DROP", nil},
		"before conntrack":                  {"-t raw\n-P PREROUTING DROP", []string{"!policy drop"}},
		"a table to come":                   {"-t future\n-P INPUT DROP", nil},
		"another port": {
			toNAT + "REDIRECT --to-ports 8080\n-t filter\n" + policy + "-A INPUT -p tcp --dport 8080 -j ACCEPT", nil,
		},
		"a container": {
			toNAT + "DNAT --to-destination 172.17.0.2:8080\n-t filter\n" + policy + "-A FORWARD -d 172.17.0.2/32 -p tcp --dport 8080 -j DROP",
			[]string{"!rule -A FORWARD -d 172.17.0.2/32 -p tcp --dport 8080 -j DROP"},
		},
		"a container, the same port": {
			toNAT + "DNAT --to-destination 172.17.0.2\n-t filter\n" + policy + "-A FORWARD -m addrtype --dst-type LOCAL -j DROP", nil,
		},
	} {
		t.Run(name, func(t *testing.T) {
			var tables []table
			in, lines := "filter", []string(nil)
			for line := range strings.SplitSeq(row.text+"\n-t end", "\n") {
				if next, isName := strings.CutPrefix(line, "-t "); isName {
					tables = append(tables, legacyTable(unix.NFPROTO_IPV4, "iptables-legacy", in, lines))
					in, lines = next, nil
					continue
				}
				lines = append(lines, line)
			}
			var got []string
			for _, o := range obstacles(tables, []packet{web()}, netip.Addr.IsLoopback) {
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

// With everything shared, no parameter names a service of UDP.
func TestWhatIsAsked(t *testing.T) {
	var names []string
	for _, p := range packets(clusterip.Layout{Prefixes: []netip.Prefix{
		netip.MustParsePrefix("192.168.10.3/24"), netip.MustParsePrefix("2001:db8::3/64"),
	}}, false) {
		if !p.unasked {
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
