package operator

import (
	"context"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/handover"
	"ocf-clusterip/internal/ocf"
	"ocf-clusterip/internal/services"
)

var vip = netip.MustParseAddr("192.168.10.3")

// knownOf is a resource of eight buckets, as this node and the cluster manager know it.
func knownOf(mode clusterip.HashMode, services ...services.Service) Known {
	return Known{
		Layout: clusterip.Layout{
			Resource: "web-ip", Prefixes: []netip.Prefix{netip.PrefixFrom(vip, 24), netip.MustParsePrefix("2001:db8::3/64")},
			HashMode: mode, HashCompat: clusterip.XTCluster, HashPrefixes: clusterip.PerFamily[int]{IPv4: 32, IPv6: 128},
			Seed: clusterip.DefaultSeed(vip), Buckets: 8, Services: services,
		},
		Node: "node1",
	}
}

func TestParseClient(t *testing.T) {
	for text, want := range map[string]Client{
		"192.0.2.7":           {Address: netip.MustParseAddr("192.0.2.7")},
		"192.0.2.7:5000":      {Address: netip.MustParseAddr("192.0.2.7"), Port: 5000},
		"2001:db8::7":         {Address: netip.MustParseAddr("2001:db8::7")},
		"[2001:db8::7]:65535": {Address: netip.MustParseAddr("2001:db8::7"), Port: 65535},
		"::ffff:192.0.2.7":    {Address: netip.MustParseAddr("192.0.2.7")},
	} {
		if got, err := ParseClient(text); err != nil || got != want {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{
		"", "host", "192.0.2", "192.0.2.7:", "192.0.2.7:0", "192.0.2.7:65536", "[2001:db8::7]", "fe80::1%eth0", "192.0.2.7/24", "192.0.2.7 ",
	} {
		if got, err := ParseClient(text); ocf.CodeOf(err) != ocf.ErrArgs {
			t.Errorf("%q is taken for %v (%v)", text, got, err)
		}
	}
}

func TestReadClients(t *testing.T) {
	got, err := ReadClients(strings.NewReader("# clients\n\n192.0.2.7\n  192.0.2.8:80 \n"), "file")
	want := []Client{{Address: netip.MustParseAddr("192.0.2.7")}, {Address: netip.MustParseAddr("192.0.2.8"), Port: 80}}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	if _, err := ReadClients(strings.NewReader("192.0.2.7\nnobody\n"), "file"); err == nil || !strings.Contains(err.Error(), "file, line 2") {
		t.Errorf("the error does not say where: %v", err)
	}
}

func TestStates(t *testing.T) {
	client := Client{Address: netip.MustParseAddr("192.0.2.7")}
	bucket := knownOf(clusterip.SourceIP).Layout.BucketOf(clusterip.Packet{Flow: clusterip.Flow{Source: client.Address}, Protocol: "tcp"})
	at := func(nodes ...string) map[clusterip.Bucket][]string {
		return map[clusterip.Bucket][]string{bucket: nodes}
	}
	adopting := clusterip.Moves{Adopting: []clusterip.Adoption{{Bucket: bucket, Left: time.Minute, From: []string{"node2"}}}}
	draining := clusterip.Moves{Draining: []clusterip.Drain{{Bucket: bucket, Left: time.Minute}}}
	lingering := clusterip.Tables{Moves: draining, Lingering: []clusterip.Linger{{Bucket: bucket, Left: time.Second}}}
	others := clusterip.Tables{Moves: draining, Lingering: []clusterip.Linger{{Bucket: bucket + 1, Left: time.Second}}}
	owned := []clusterip.Bucket{bucket}
	for name, row := range map[string]struct {
		here      clusterip.Tables
		placement map[clusterip.Bucket][]string
		nodes     []string
		state     string
		does      string // this node
	}{
		"here":                     {clusterip.Tables{Owned: owned}, at("node1"), []string{"node1"}, Owned, "answers"},
		"here, nobody to ask":      {clusterip.Tables{Owned: owned}, nil, []string{"node1"}, Owned, "answers"},
		"here, adopting":           {clusterip.Tables{Owned: owned, Moves: adopting}, at("node1"), []string{"node1"}, Adopting, "answers"},
		"elsewhere":                {clusterip.Tables{}, at("node2"), []string{"node2"}, Owned, ""},
		"elsewhere, draining here": {clusterip.Tables{Moves: draining}, at("node2"), []string{"node2"}, Adopting, "drains"},
		"only draining":            {clusterip.Tables{Moves: draining}, at(), []string{}, Draining, "drains"},
		"lingering here":           {lingering, at(), []string{"node1"}, Lingering, "lingers"},
		"lingering, nobody to ask": {lingering, nil, []string{"node1"}, Lingering, "lingers"},
		"elsewhere, lingers here":  {lingering, at("node2"), []string{"node2"}, Adopting, "lingers"},
		"lingering, not stopped":   {lingering, at("node1"), []string{"node1"}, Lingering, "lingers"},
		"another bucket lingers":   {others, at(), []string{}, Draining, "drains"},
		"nowhere":                  {clusterip.Tables{}, at(), []string{}, Unowned, ""},
		"nobody to ask":            {clusterip.Tables{}, nil, []string{}, Unknown, ""},
		"in two places":            {clusterip.Tables{Owned: owned}, at("node2"), []string{"node1", "node2"}, SeveralOwners, "answers"},
		"elsewhere, dropped here":  {clusterip.Tables{Present: true}, at("node2"), []string{"node2"}, Owned, "drops (nftables)"},
		"here no more":             {clusterip.Tables{}, at("node1"), []string{}, Unowned, ""},
	} {
		t.Run(name, func(t *testing.T) {
			known := knownOf(clusterip.SourceIP)
			known.Here, known.Placement = row.here, row.placement
			got, err := Whois(known, client, Target{Address: vip, Protocol: "tcp"})
			want := Answer{Client: "192.0.2.7", Bucket: uint32(bucket), Nodes: row.nodes, State: row.state, Here: row.does}
			if diff := cmp.Diff(want, got); err != nil || diff != "" {
				t.Errorf("%v (-want +got):\n%s", err, diff)
			}
		})
	}
}

// announced is a cluster in which nodes have announced this about each bucket.
type announced struct {
	Cluster
	own     map[string]handover.Announcement
	relayed map[string]handover.Relayed
}

func (c announced) Announcements(context.Context, netip.Addr, clusterip.Bucket) (map[string]handover.Announcement, error) {
	return c.own, nil
}

func (c announced) Relayed(context.Context, netip.Addr, clusterip.Bucket) (map[string]handover.Relayed, error) {
	return c.relayed, nil
}

// Which other node lingers is known from its own announcement.
func TestWhoLingersElsewhere(t *testing.T) {
	client := Client{Address: netip.MustParseAddr("192.0.2.7")}
	known := knownOf(clusterip.SourceIP)
	known.Layout.Drains = true
	bucket := known.Layout.BucketOf(clusterip.Packet{Flow: clusterip.Flow{Source: client.Address}, Protocol: "tcp"})
	lingers := handover.Announcement{
		Drain: time.Minute, Layout: known.Layout.Identity(), Nonce: "n", Lingers: handover.Lingering{For: 3 * time.Second, Key: "k"},
	}
	drains, otherwise := lingers, lingers
	drains.Lingers, otherwise.Layout = handover.Lingering{}, "of another hash"
	here := clusterip.Tables{
		Moves:     clusterip.Moves{Draining: []clusterip.Drain{{Bucket: bucket, Left: time.Minute}}},
		Lingering: []clusterip.Linger{{Bucket: bucket, Left: time.Second}},
	}
	for name, row := range map[string]struct {
		cluster   announced
		here      clusterip.Tables
		placement []string
		nodes     []string
		state     string
	}{
		"it lingers": {
			announced{own: map[string]handover.Announcement{"node2": lingers, "node3": drains}},
			clusterip.Tables{},
			nil,
			[]string{"node2"},
			Lingering,
		},
		"it only drains": {
			announced{own: map[string]handover.Announcement{"node2": drains}}, clusterip.Tables{}, nil, []string{}, Draining,
		},
		"it was taken over": {
			announced{own: map[string]handover.Announcement{"node2": lingers}},
			clusterip.Tables{},
			[]string{"node3"},
			[]string{"node3"},
			Adopting,
		},
		"taken over by this node": {
			announced{own: map[string]handover.Announcement{"node2": lingers}},
			clusterip.Tables{Owned: []clusterip.Bucket{bucket}},
			nil,
			[]string{"node1"},
			Owned,
		},
		"this node does now": {
			announced{own: map[string]handover.Announcement{"node2": lingers}}, here, nil, []string{"node1"}, Lingering,
		},
		"of this node its kernel is right": {
			announced{own: map[string]handover.Announcement{"node1": lingers}}, clusterip.Tables{}, nil, []string{}, Unowned,
		},
		"the bucket of another layout has other clients": {
			announced{own: map[string]handover.Announcement{"node2": otherwise}}, clusterip.Tables{}, nil, []string{}, Draining,
		},
		"what is relayed may be over long since": {
			announced{relayed: map[string]handover.Relayed{"node3": {
				Drainers:  []handover.Drainer{{Node: "node2", Left: time.Minute}},
				Lingering: []handover.Lingerer{{Node: "node2", Lingering: lingers.Lingers}},
			}}},
			clusterip.Tables{},
			nil,
			[]string{},
			Draining,
		},
	} {
		t.Run(name, func(t *testing.T) {
			known := known
			known.Here, known.Placement = row.here, map[clusterip.Bucket][]string{bucket: row.placement}
			if err := known.LookForDrains(t.Context(), row.cluster, []clusterip.Bucket{bucket}); err != nil {
				t.Fatal(err)
			}
			got, err := Whois(known, client, Target{Address: vip, Protocol: "tcp"})
			if diff := cmp.Diff(row.nodes, got.Nodes); err != nil || diff != "" || got.State != row.state {
				t.Errorf("state %s, want %s; %v; nodes (-want +got):\n%s", got.State, row.state, err, diff)
			}
		})
	}
}

// The BPF program of early_drop drops a packet before the tables do.
func TestWhoisNamesTheProgramThatDrops(t *testing.T) {
	known := knownOf(clusterip.SourceIP)
	known.Here = clusterip.Tables{Present: true}
	known.Early = clusterip.EarlyDropState{Attached: clusterip.EarlyDropTC, Addresses: []netip.Addr{vip}}
	got, err := Whois(known, Client{Address: netip.MustParseAddr("192.0.2.7")}, Target{Address: vip, Protocol: "tcp"})
	if err != nil || got.Here != "drops (tc)" {
		t.Errorf("%q, %v", got.Here, err)
	}
}

// What is not said and matters is asked for; what does not matter is not.
func TestWhatMustBeSaid(t *testing.T) {
	web := services.Service{Protocol: "tcp", First: 80, Last: 80}
	for name, row := range map[string]struct {
		known  Known
		client string
		target Target
		says   string // "": nothing is wrong
	}{
		"an address is enough": {knownOf(clusterip.SourceIP), "192.0.2.7", Target{Address: vip, Protocol: "tcp"}, ""},
		"the client's port": {
			knownOf(clusterip.SourceIPSourcePort), "192.0.2.7", Target{Address: vip, Protocol: "tcp"}, "192.0.2.7:PORT",
		},
		"the client's port, said": {knownOf(clusterip.SourceIPSourcePort), "192.0.2.7:5", Target{Address: vip, Protocol: "tcp"}, ""},
		"pings have no ports": {
			knownOf(clusterip.SourceIPSourcePortDestPort, web), "192.0.2.7", Target{Address: vip, Protocol: "icmp"}, "",
		},
		"the service's port": {
			knownOf(clusterip.SourceIPSourcePortDestPort), "192.0.2.7:5", Target{Address: vip, Protocol: "tcp"}, "--to 192.168.10.3:80",
		},
		"the service": {
			knownOf(clusterip.SourceIP, web), "192.0.2.7", Target{Address: vip, Protocol: "tcp"}, "--to 192.168.10.3:80",
		},
		"another address": {
			knownOf(clusterip.SourceIP), "192.0.2.7",
			Target{Address: netip.MustParseAddr("192.168.10.9"), Protocol: "tcp"},
			"not an address of the resource",
		},
		"another version": {
			knownOf(clusterip.SourceIP), "2001:db8::7", Target{Address: vip, Protocol: "tcp"}, "different IP versions",
		},
		"a version's first address": {knownOf(clusterip.SourceIP), "2001:db8::7", Target{Protocol: "tcp"}, ""},
		"the resource's other family": {
			knownOf(clusterip.SourceIP), "2001:db8::7", Target{Address: netip.MustParseAddr("2001:db8::3"), Protocol: "tcp"}, "",
		},
	} {
		t.Run(name, func(t *testing.T) {
			client, err := ParseClient(row.client)
			if err != nil {
				t.Fatal(err)
			}
			_, err = Whois(row.known, client, row.target)
			if row.says == "" && err != nil || row.says != "" && (ocf.CodeOf(err) != ocf.ErrArgs || !strings.Contains(err.Error(), row.says)) {
				t.Errorf("error %v, want %q", err, row.says)
			}
		})
	}
}

func TestAnswersAsText(t *testing.T) {
	answers := []Answer{
		{Client: "192.0.2.7", Bucket: 3, Nodes: []string{"node1"}, State: Owned, Here: "drops (xdp)"},
		{Client: "2001:db8::7", Port: 5000, Bucket: 12, Nodes: []string{}, State: Unknown},
		{Client: "192.0.2.8", Bucket: 0, Nodes: []string{"node1", "node2"}, State: SeveralOwners},
	}
	var text, object strings.Builder
	if err := WriteAnswers(&text, answers, false); err != nil {
		t.Fatal(err)
	}
	want := `CLIENT              BUCKET  NODE         STATE           THIS NODE
192.0.2.7           3       node1        owned           drops (xdp)
[2001:db8::7]:5000  12      -            unknown         -
192.0.2.8           0       node1,node2  several-owners  -
`
	if diff := cmp.Diff(want, text.String()); diff != "" {
		t.Errorf("text (-want +got):\n%s", diff)
	}
	if err := WriteAnswers(&object, answers[1:2], true); err != nil {
		t.Fatal(err)
	}
	const wantJSON = `[
  {
    "client": "2001:db8::7",
    "port": 5000,
    "bucket": 12,
    "nodes": [],
    "state": "unknown",
    "here": ""
  }
]
`
	if diff := cmp.Diff(wantJSON, object.String()); diff != "" {
		t.Errorf("JSON (-want +got):\n%s", diff)
	}
}

func FuzzParseClient(f *testing.F) {
	for _, text := range []string{"192.0.2.7", "192.0.2.7:80", "[::1]:1", "::ffff:1.2.3.4", "fe80::1%e"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if client, err := ParseClient(text); err == nil && (!client.Address.IsValid() || client.Address.Zone() != "" || client.Address.Is4In6()) {
			t.Errorf("%q is taken for %v", text, client)
		}
	})
}
