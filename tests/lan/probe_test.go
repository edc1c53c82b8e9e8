//go:build system

package lan

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

// sharedMAC is the article's.
var sharedMAC = net.HardwareAddr{1, 2, 3, 4, 5, 6}

func TestProbe256SourcesOneNodeAnswers(t *testing.T) {
	n := Start(t, Options{})
	serve(t, n)
	share(t, n.Nodes[1])
	r := probe(t, n, Traffic{Target: shared, Sources: n.Sources(256)})
	if err := r.ExactlyOnce(always(1)); err != nil {
		t.Error(err)
	}
	if r.Sent() != 3*256 || r.Lost() != 0 || r.Answered()[1] != 3*256 {
		t.Errorf("sent %d, lost %d, answered %v", r.Sent(), r.Lost(), r.Answered())
	}
	first := r.Exchanges[256].Flow // the second protocol's
	want := Flow{UDP, netip.MustParseAddr("192.168.64.1"), shared, 20000, EchoPort}
	if first != want {
		t.Errorf("flow %s, want %s", first, want)
	}
	if err := r.ExactlyOnce(always(0)); err == nil || !strings.Contains(err.Error(), "768 of 768") {
		t.Errorf("a wrong owner is not reported: %v", err)
	}
	for i := range 3 { // ports free again, nothing left over from the run before
		r := probe(t, n, Traffic{Target: shared, Sources: n.Sources(64)})
		if err := r.ExactlyOnce(always(1)); err != nil {
			t.Errorf("again, %d: %v", i, err)
		}
	}
}

// cluster makes all nodes receive frames for the shared MAC, as without filters: all nodes answer.
func cluster(t *testing.T, n *Network) {
	t.Helper()
	for _, h := range n.Nodes {
		share(t, h)
		// TCP takes no frame whose Ethernet destination is a group.
		nft(t, h, `table netdev stand_in { chain in { type filter hook ingress device "eth0" priority 0;
			ether daddr 01:02:03:04:05:06 meta pkttype set host; }; }`)
	}
	check(t, n.Client.SetNeighbour(shared, sharedMAC))
}

func TestProbeSeesEveryAnswer(t *testing.T) {
	n := Start(t, Options{})
	serve(t, n)
	cluster(t, n)
	r := probe(t, n, Traffic{Target: shared, Sources: n.Sources(64)})
	firsts := func(e Exchange) []int {
		var nodes []int
		for _, a := range e.Answers {
			if a.Kind == Reply || a.Kind == SynAck {
				nodes = append(nodes, a.Node)
			}
		}
		slices.Sort(nodes)
		return nodes
	}
	for _, e := range r.Exchanges {
		if got := firsts(e); !slices.Equal(got, []int{0, 1, 2}) {
			t.Errorf("%s: answered by nodes %v, want each once", e.Flow, got)
		}
	}
	err := r.ExactlyOnce(always(0))
	if err == nil || !strings.Contains(err.Error(), "packet 1 answered 3 times") ||
		!strings.Contains(err.Error(), "foreign answer (reply) from node2") {
		t.Errorf("duplicates are not reported: %v", err)
	}
	if err := r.AtMostOnce(func(Flow, int) bool { return true }); err == nil {
		t.Error("duplicates from allowed nodes are not reported")
	}
}

// buckets makes each node of a cluster let in the flows whose source address leaves the node's index as remainder.
func buckets(t *testing.T, n *Network) func(Flow) int {
	t.Helper()
	cluster(t, n)
	for i, h := range n.Nodes {
		var others []string
		for _, src := range n.Sources(255) {
			if int(src.As4()[3])%len(n.Nodes) != i {
				others = append(others, src.String())
			}
		}
		nft(t, h, fmt.Sprintf("add rule netdev stand_in in ip daddr %s ip saddr { %s } drop", shared, strings.Join(others, ", ")))
	}
	return func(f Flow) int { return int(f.Src.As4()[3]) % len(n.Nodes) }
}

func TestProbeFindsTheOwner(t *testing.T) {
	n := Start(t, Options{})
	serve(t, n)
	owner := buckets(t, n)
	for _, size := range []int{0, 1400, 9000} { // 9000: fragments
		r := probe(t, n, Traffic{Target: shared, Sources: n.Sources(255), Size: size})
		if err := r.ExactlyOnce(owner); err != nil {
			t.Errorf("%d bytes: %v", size, err)
		}
		if want := map[int]int{0: 255, 1: 255, 2: 255}; fmt.Sprint(r.Answered()) != fmt.Sprint(want) {
			t.Errorf("%d bytes: flows answered by each node: %v, want %v", size, r.Answered(), want)
		}
	}
}

func TestProbeSeesRefusals(t *testing.T) {
	n := Start(t, Options{Nodes: 1}) // without a server
	share(t, n.Nodes[0])
	r := probe(t, n, Traffic{Target: shared, Sources: n.Sources(2), Protos: []Proto{UDP, TCP}})
	for i, want := range []Kind{Unreachable, Unreachable, Reset, Reset} {
		e := r.Exchanges[i]
		if len(e.Answers) != 1 || e.Answers[0].Kind != want || e.Answers[0].Node != 0 || e.Answers[0].Seq != 1 {
			t.Errorf("%s: answers %+v, want one %s of packet 1 from node1", e.Flow, e.Answers, want)
		}
	}
	if err := r.ExactlyOnce(always(0)); err == nil || !strings.Contains(err.Error(), "refused (rst) by node1") {
		t.Errorf("refusals are not reported: %v", err)
	}
}

func TestProbeSeesOtherHosts(t *testing.T) {
	n := Start(t, Options{Nodes: 2})
	serve(t, n)
	share(t, n.Nodes[0])
	nft(t, n.Nodes[0], `table netdev stand_in { chain out { type filter hook egress device "eth0" priority 0;
		ip saddr 192.168.10.3 ether saddr set 02:03:04:05:06:07; }; }`)
	r := probe(t, n, Traffic{Target: shared, Sources: n.Sources(2)})
	if err := r.ExactlyOnce(always(0)); err == nil || !strings.Contains(err.Error(), "from another host, 02:03:04:05:06:07") {
		t.Errorf("a wrong Ethernet source is not reported: %v", err)
	}
	if err := r.AtMostOnce(func(Flow, int) bool { return true }); err == nil {
		t.Error("a wrong Ethernet source is not reported where all nodes are allowed")
	}
}

func TestProbeCountsLosses(t *testing.T) {
	n := Start(t, Options{Nodes: 1})
	serve(t, n)
	share(t, n.Nodes[0])
	const sources = 4
	// The first packet of each flow is lost.
	nft(t, n.Nodes[0], `table ip stand_in {
		set seen { type ipv4_addr . inet_proto; flags dynamic; size 1024; }
		chain in { type filter hook prerouting priority 0;
			ip daddr 192.168.10.3 udp dport != 7 accept
			ip daddr 192.168.10.3 ip saddr . ip protocol != @seen add @seen { ip saddr . ip protocol } drop; }; }`)
	// Not TCP: the client's kernel sends a lost SYN again, after a second, which the probe's wait may outlast.
	traffic := Traffic{Target: shared, Sources: n.Sources(sources), Protos: []Proto{ICMP, UDP}}
	r := probe(t, n, traffic)
	if err := r.ExactlyOnce(always(0)); err == nil || r.Lost() != 2*sources || r.Sent() != 2*sources {
		t.Errorf("without retries: sent %d, lost %d, %v", r.Sent(), r.Lost(), err)
	}
	nft(t, n.Nodes[0], "flush set ip stand_in seen")
	traffic.Retries = 2
	r = probe(t, n, traffic)
	if err := r.ExactlyOnce(always(0)); err != nil || r.Lost() != 2*sources || r.Sent() != 4*sources {
		t.Errorf("with retries: sent %d, lost %d, %v", r.Sent(), r.Lost(), err)
	}
}

// A node whose SYN-ACK is not acknowledged in time repeats it, which is no second answer.
func TestProbeIgnoresARepeatedSynAck(t *testing.T) {
	n := Start(t, Options{Nodes: 1})
	serve(t, n)
	share(t, n.Nodes[0])
	nft(t, n.Nodes[0], `table ip stand_in { chain in { type filter hook prerouting priority 0;
		ip daddr 192.168.10.3 tcp flags & (syn | ack) == ack drop; }; }`)
	repeats, err := n.Client.Capture(NIC, func(f Frame) bool {
		p, ok := f.Packet()
		return ok && !f.Outgoing && p.Proto == TCP && p.Flags&TCPSyn != 0
	})
	check(t, err)
	r := probe(t, n, Traffic{Target: shared, Sources: n.Sources(1), Protos: []Proto{TCP}, Settle: 3 * time.Second})
	if err := r.ExactlyOnce(always(0)); err != nil {
		t.Error(err)
	}
	frames, err := repeats.Stop()
	check(t, err)
	if len(frames) < 2 {
		t.Errorf("%d SYN-ACKs, want at least 2", len(frames))
	}
}

func TestProbeOfNobody(t *testing.T) {
	n := Start(t, Options{Nodes: 1})
	r := probe(t, n, Traffic{Target: shared, Sources: n.Sources(1)})
	if err := r.ExactlyOnce(always(0)); err == nil || !strings.Contains(err.Error(), "not answered, node1 should (sent 1 times)") {
		t.Errorf("missing answers are not reported: %v", err)
	}
	if err := r.AtMostOnce(func(Flow, int) bool { return false }); err != nil {
		t.Errorf("no answer is no fault here: %v", err)
	}
}
