package operator

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/handover"
	"ocf-clusterip/internal/operator/style"
	"ocf-clusterip/internal/pacemaker"
	"ocf-clusterip/internal/services"
)

var update = flag.Bool("update", false, "write the golden texts")

// golden compares a text with what a file says it should be.
func golden(t *testing.T, file, text string) {
	t.Helper()
	file = filepath.Join("testdata", file)
	if *update {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v (make it with: go test ./internal/operator -update)", err)
	}
	if diff := cmp.Diff(string(want), text); diff != "" {
		t.Errorf("%s (-want +got; if it is right: go test ./internal/operator -update):\n%s", file, diff)
	}
}

var now = time.Date(2026, 11, 26, 2, 0, 0, 0, time.UTC)

// surveyOf is what node1 of three knows of a resource of eight buckets when all is well.
func surveyOf(change ...func(*Survey)) Survey {
	known := knownOf(clusterip.SourceIP)
	known.Layout.NIC, known.Layout.MACMode, known.Layout.Backend, known.Layout.Drains = "eth0", clusterip.Multicast, clusterip.NFTables, true
	mac := clusterip.DerivedMAC(clusterip.Multicast, vip)
	known.Layout.MACs = clusterip.PerFamily[clusterip.MAC]{IPv4: mac, IPv6: mac}
	installed := known.Layout
	known.Here = clusterip.Tables{Present: true, Installed: &installed, Backend: clusterip.NFTables, Owned: []clusterip.Bucket{0, 3, 6}}
	known.Early = clusterip.EarlyDropState{Attached: clusterip.EarlyDropXDP, Addresses: []netip.Addr{vip}, Passed: known.Here.Owned}
	known.Placement = map[clusterip.Bucket][]string{
		0: {"node1"}, 1: {"node2"}, 2: {"node3"}, 3: {"node1"}, 4: {"node2"}, 5: {"node3"}, 6: {"node1"}, 7: {"node2"},
	}
	spec := installed.Spec()
	spec.Backend, spec.Drain = clusterip.Auto, 10*time.Minute
	survey := Survey{
		Node: "node1",
		Cluster: &pacemaker.View{Quorum: true, Fencing: true, Nodes: []pacemaker.Node{
			{Name: "node1", Online: true}, {Name: "node2", Online: true}, {Name: "node3", Online: true},
		}},
		Resources: []Resource{{
			Known: known, Spec: spec, Configured: &pacemaker.Resource{Name: "web-ip", Clone: "web-ip-clone"}, Backend: "auto: the first choice",
			Connections: map[clusterip.Bucket]int{0: 3, 5: 12},
			Traffic: &clusterip.Traffic{
				Buckets: map[clusterip.Bucket]clusterip.Count{0: {Packets: 12, Bytes: 1200}, 3: {Packets: 3456789, Bytes: 5 << 30}, 6: {}},
				Foreign: clusterip.Count{Packets: 98765, Bytes: 12 << 20},
				Early:   clusterip.Count{Packets: 98000, Bytes: 11 << 20},
			},
			EarlyDrop: "auto: the first choice",
			Memory: &Memory{Connections: 1234, Limit: 65536, Told: clusterip.Told{
				Connections: 250, When: now.Add(-time.Hour), Took: 45 * time.Millisecond,
			}},
		}},
	}
	for _, do := range change {
		do(&survey)
	}
	return survey
}

// draining and lingering are what a node has announced about a bucket.
func draining(bucket clusterip.Bucket, node string) map[clusterip.Bucket][]handover.Drainer {
	return map[clusterip.Bucket][]handover.Drainer{bucket: {{Node: node, Left: time.Minute}}}
}

func lingering(bucket clusterip.Bucket, node string) map[clusterip.Bucket][]handover.Lingerer {
	return map[clusterip.Bucket][]handover.Lingerer{bucket: {{Node: node, Lingering: handover.Lingering{For: 3 * time.Second}}}}
}

// What an operator sees, on a terminal of 80 columns and in a pipe.
func TestStatusAsText(t *testing.T) {
	for name, survey := range map[string]Survey{
		"healthy": surveyOf(),
		"moves": surveyOf(func(s *Survey) {
			r := &s.Resources[0]
			r.Here.Moves = clusterip.Moves{
				Draining: []clusterip.Drain{{Bucket: 4, Left: 599 * time.Second}, {Bucket: 5, Left: 590*time.Second + 1}},
				Adopting: []clusterip.Adoption{{Bucket: 6, Left: 30 * time.Second, From: []string{"node3"}}},
			}
			r.Here.Lingering = []clusterip.Linger{{Bucket: 4, Left: 1800 * time.Millisecond}}
			r.Drainers = map[clusterip.Bucket][]handover.Drainer{
				1: {{Node: "node2", Left: 600 * time.Second}}, 7: {{Node: "node3", Left: 600 * time.Second}},
			}
			r.Lingerers = lingering(1, "node2")
			delete(r.Placement, 1)
			delete(r.Placement, 4)
		}),
		"faults": surveyOf(func(s *Survey) {
			s.Cluster.Nodes[2] = pacemaker.Node{Name: "node3", Unclean: true}
			s.Cluster.Failures = []pacemaker.Failure{
				{
					Action: "web-ip:3_monitor_10000", Node: "node1", Reason: "bucket 3 of 192.168.10.3 runs, but: the agent's tables are gone",
					When: "2026-11-26 01:54:37Z",
				},
				{Action: "web-ip:0_monitor_10000", Node: "node1", Reason: "error", When: "2026-11-26 01:54:36Z"},
			}
			s.Cluster.Instances = []pacemaker.Instance{{Resource: "web-ip", Bucket: 1, Managed: true, Blocked: true}, {Resource: "other", Bucket: 1}}
			r := &s.Resources[0]
			r.Faults = []string{
				"address 192.168.10.3/24 is missing on eth0",
				"table arp clusterip-192.168.10.3: chain output: rule \"ARP contains the shared MAC\" is missing or changed",
			}
			r.Placement[2], r.Placement[5], r.Placement[6] = nil, nil, []string{"node2"}
			r.Unread = []error{errors.New("list the tracked connections: device or resource busy")}
		}),
		"without-pacemaker": surveyOf(func(s *Survey) {
			s.Node, s.Cluster, s.ClusterErr = "", nil, errors.New(
				"/usr/sbin/crm_node: exit status 102 error: Could not connect to controller: Connection refused",
			)
			r := &s.Resources[0]
			r.Node, r.Placement, r.Configured, r.Traffic = "", nil, nil, nil
			r.Layout.Services = []services.Service{{Protocol: "tcp", First: 80, Last: 80}, services.ICMP}
			r.Layout.HashPrefixes = clusterip.PerFamily[int]{IPv4: 24, IPv6: 64}
		}),
		"two-resources": surveyOf(func(s *Survey) {
			other := s.Resources[0]
			other.Spec.Resource, other.Configured = "dns-ip", &pacemaker.Resource{
				Name: "dns-ip", Clone: "dns-ip-clone", Meta: map[string]string{"target-role": "Stopped"},
			}
			other.Layout.Prefixes = []netip.Prefix{netip.MustParsePrefix("192.168.10.4/24")}
			other.Layout.Drains, other.Spec.Drain = false, 0
			other.Here, other.Traffic, other.Placement = clusterip.Tables{}, nil, map[clusterip.Bucket][]string{}
			s.Resources = append(s.Resources, other)
		}),
	} {
		t.Run(name, func(t *testing.T) {
			var pipe, terminal strings.Builder
			status := Judge(survey, now)
			for to, look := range map[*strings.Builder]style.Style{&pipe: {Width: 80}, &terminal: {Width: 80, Colour: true}} {
				if err := WriteStatus(to, status, look); err != nil {
					t.Fatal(err)
				}
			}
			golden(t, "status-"+name+".txt", pipe.String())
			golden(t, "status-"+name+".ansi", terminal.String())
			for line := range strings.Lines(pipe.String()) {
				if !strings.Contains(line, "$ ") && len([]rune(strings.TrimRight(line, "\n"))) > 80 {
					t.Errorf("longer than 80 columns: %s", line)
				}
			}
			isValid(t, "status", status)
		})
	}
}

// isValid checks a value's JSON against its schema, and that no member is there that the schema does not describe.
func isValid(t *testing.T, schema string, value any) {
	t.Helper()
	compiler := jsonschema.NewCompiler()
	compiler.AssertFormat()
	text, err := os.ReadFile("../../docs/schema/" + schema + ".schema.json")
	if err != nil {
		t.Fatal(err)
	}
	// A later version may say more, but this one says nothing that is not described.
	closed, err := jsonschema.UnmarshalJSON(
		strings.NewReader(strings.ReplaceAll(string(text), `"properties": {`, `"additionalProperties": false, "properties": {`)),
	)
	if err != nil {
		t.Fatal(err)
	}
	if err := compiler.AddResource("closed.json", closed); err != nil {
		t.Fatal(err)
	}
	compiled, err := compiler.Compile("closed.json")
	if err != nil {
		t.Fatal(err)
	}
	var object bytes.Buffer
	if err := WriteJSON(&object, value); err != nil {
		t.Fatal(err)
	}
	instance, err := jsonschema.UnmarshalJSON(&object)
	if err != nil {
		t.Fatal(err)
	}
	if err := compiled.Validate(instance); err != nil {
		t.Errorf("the JSON does not fit docs/schema/%s.schema.json: %v", schema, err)
	}
}

// The fingerprint is published, by metrics for instance, and must not tell a small seed.
func TestFingerprintGivesNoSeedAway(t *testing.T) {
	const smallSeeds, enough = 1 << 16, 100
	seed := clusterip.Seed(12345)
	told := Resource{Known: Known{Layout: clusterip.Layout{Seed: seed}}}.status(Survey{}).SeedFingerprint
	var candidates int
	differ := false
	for other := range clusterip.Seed(smallSeeds) {
		same := Resource{Known: Known{Layout: clusterip.Layout{Seed: other}}}.status(Survey{}).SeedFingerprint == told
		differ = differ || !same
		if same {
			candidates++
		}
	}
	if candidates < enough || !differ {
		t.Errorf("fingerprint %s is that of %d of %d small seeds", told, candidates, smallSeeds)
	}
}

func TestHealth(t *testing.T) {
	for name, row := range map[string]struct {
		change func(*Survey)
		want   Health
		says   string
	}{
		"all is well":       {func(*Survey) {}, Healthy, ""},
		"a node in standby": {func(s *Survey) { s.Cluster.Nodes[2].Standby = true }, Healthy, ""},
		"a drain": {func(s *Survey) {
			s.Resources[0].Here.Moves.Draining = []clusterip.Drain{{Bucket: 1, Left: time.Minute}}
		}, Healthy, ""},
		"a node offline": {func(s *Survey) { s.Cluster.Nodes[2].Online = false }, Degraded, "node3 is offline"},
		"no quorum":      {func(s *Survey) { s.Cluster.Quorum = false }, Degraded, "quorum"},
		"no fencing":     {func(s *Survey) { s.Cluster.Fencing = false }, Degraded, "fencing"},
		"no fencing for the node that decides": {func(s *Survey) {
			s.FencingOff = []pacemaker.Setting{{Name: "stonith-enabled", Value: "no"}}
		}, Degraded, "fencing is disabled (stonith-enabled=no)"},
		"maintenance":          {func(s *Survey) { s.Cluster.Maintenance = true }, Degraded, "maintenance"},
		"a node's maintenance": {func(s *Survey) { s.Cluster.Nodes[1].Maintenance = true }, Degraded, "node2 is in maintenance"},
		"nobody to ask":        {func(s *Survey) { s.Cluster, s.ClusterErr = nil, errors.New("refused") }, Degraded, "refused"},
		"a fault here": {
			func(s *Survey) { s.Resources[0].Faults = []string{"the agent's tables are gone"} }, Broken, "the agent's tables are gone",
		},
		"leftovers": {
			func(s *Survey) { s.Resources[0].Left = []string{"192.168.10.3/24 on eth0"} }, Broken, "192.168.10.3/24 on eth0",
		},
		"configured wrong":  {func(s *Survey) { s.Resources[0].Misconfigured = errors.New("parameter ip=x") }, Broken, "parameter ip=x"},
		"an unowned bucket": {func(s *Survey) { delete(s.Resources[0].Placement, 1) }, Broken, "bucket 1: unowned"},
		"only drained": {func(s *Survey) {
			delete(s.Resources[0].Placement, 1)
			s.Resources[0].Here.Moves.Draining = []clusterip.Drain{{Bucket: 1, Left: time.Minute}}
		}, Broken, "bucket 1: unowned"},
		"it lingers here": {func(s *Survey) {
			delete(s.Resources[0].Placement, 1)
			s.Resources[0].Here.Moves.Draining = []clusterip.Drain{{Bucket: 1, Left: time.Minute}}
			s.Resources[0].Here.Lingering = []clusterip.Linger{{Bucket: 1, Left: 2500 * time.Millisecond}}
		}, Healthy, `"state":"lingering","nodes":[],"drains":[{"node":"node1","seconds":60,"lingers_seconds":3,`},
		"it lingers elsewhere": {func(s *Survey) {
			delete(s.Resources[0].Placement, 1)
			s.Resources[0].Drainers, s.Resources[0].Lingerers = draining(1, "node2"), lingering(1, "node2")
		}, Healthy, `"state":"lingering","nodes":[],"drains":[{"node":"node2","seconds":60,"lingers_seconds":3,`},
		"it lingers here, and there is nobody to ask": {func(s *Survey) {
			r := &s.Resources[0]
			s.Cluster, s.ClusterErr, r.Placement = nil, errors.New("refused"), nil
			r.Here.Moves.Draining = []clusterip.Drain{{Bucket: 1, Left: time.Minute}}
			r.Here.Lingering = []clusterip.Linger{{Bucket: 1, Left: time.Second}}
		}, Degraded, `"state":"lingering"`},
		"it was taken over, and the announcement is not yet cleared": {func(s *Survey) {
			s.Resources[0].Drainers, s.Resources[0].Lingerers = draining(1, "node3"), lingering(1, "node3")
		}, Healthy, `"state":"adopting","nodes":["node2"],"drains":[{"node":"node3","seconds":60,"lingers_seconds":0,`},
		"it lingers here, and the last node that lingered has not cleared its announcement": {func(s *Survey) {
			r := &s.Resources[0]
			delete(r.Placement, 1)
			r.Here.Moves.Draining = []clusterip.Drain{{Bucket: 1, Left: time.Minute}}
			r.Here.Lingering = []clusterip.Linger{{Bucket: 1, Left: time.Second}}
			r.Drainers, r.Lingerers = draining(1, "node2"), lingering(1, "node2")
		}, Healthy, `{"node":"node2","seconds":60,"lingers_seconds":0,`},
		"a lost node's buckets": {func(s *Survey) {
			s.Cluster.Nodes[2] = pacemaker.Node{Name: "node3", Unclean: true}
			s.Cluster.Instances = []pacemaker.Instance{{Resource: "web-ip", Bucket: 2, Nodes: []string{"node3"}, Managed: true}}
			s.Resources[0].Placement = s.Cluster.Placement("web-ip")
		}, Broken, "bucket"},
		"it drains, and there is nobody to ask": {func(s *Survey) {
			r := &s.Resources[0]
			s.Cluster, s.ClusterErr, r.Placement, r.Configured, r.Here.Owned = nil, errors.New("refused"), nil, nil, nil
			r.Here.Moves.Draining = []clusterip.Drain{{Bucket: 1, Left: time.Minute}}
		}, Degraded, "refused"},
		"installed here, and not configured": {
			func(s *Survey) { s.Resources[0].Configured = nil; s.Resources[0].Placement = nil }, Degraded, "not in Pacemaker's configuration",
		},
		"an instance failed elsewhere": {func(s *Survey) {
			s.Cluster.Instances = []pacemaker.Instance{{Resource: "web-ip", Bucket: 1, Nodes: []string{"node2"}, Managed: true, Failed: true}}
		}, Broken, "bucket 1: failed"},
		"an instance failed here, and the kernel knows better": {func(s *Survey) {
			s.Cluster.Instances = []pacemaker.Instance{{Resource: "web-ip", Bucket: 0, Nodes: []string{"node1"}, Managed: true, Failed: true}}
		}, Healthy, ""},
		"not managed": {func(s *Survey) {
			s.Cluster.Instances = []pacemaker.Instance{{Resource: "web-ip", Bucket: 1, Nodes: []string{"node2"}}}
		}, Degraded, "bucket 1: unmanaged"},
		"not managed, because the node is in maintenance": {func(s *Survey) {
			s.Cluster.Nodes[1].Maintenance = true
			s.Cluster.Instances = []pacemaker.Instance{{Resource: "web-ip", Bucket: 1, Nodes: []string{"node2"}}}
		}, Degraded, `"problems":[]`},
		"unread without Pacemaker": {func(s *Survey) {
			s.Cluster, s.Resources[0].Unread = nil, []error{errors.New("busy")}
		}, Degraded, "busy"},
		"two answer a bucket":        {func(s *Survey) { s.Resources[0].Placement[0] = []string{"node2"} }, Broken, "node1, node2"},
		"Pacemaker believes, we not": {func(s *Survey) { s.Resources[0].Here.Owned = []clusterip.Bucket{0, 3} }, Broken, "bucket 6: unowned"},
	} {
		t.Run(name, func(t *testing.T) {
			status := Judge(surveyOf(row.change), now)
			text, err := json.Marshal(status)
			if err != nil || status.Health != row.want || !strings.Contains(string(text), row.says) {
				t.Errorf("%v, want %v because %q: %v\n%s", status.Health, row.want, row.says, err, text)
			}
		})
	}
}

// What is broken at one look and mended at the next was an action that was half done.
func TestBrokenOnlyIfConfirmed(t *testing.T) {
	lost := func(buckets ...clusterip.Bucket) Status {
		return Judge(surveyOf(func(s *Survey) {
			for _, b := range buckets {
				delete(s.Resources[0].Placement, b)
			}
		}), now)
	}
	faulty := func(fault string) Status {
		return Judge(surveyOf(func(s *Survey) { s.Resources[0].Faults = []string{fault} }), now)
	}
	for name, row := range map[string]struct {
		first, second Status
		want          bool
	}{
		"the same bucket":            {lost(1), lost(1, 2), true},
		"another bucket, in transit": {lost(1), lost(2), false},
		"the same fault":             {faulty("the agent's tables are gone"), faulty("the agent's tables are gone"), true},
		"another fault":              {faulty("the agent's tables are gone"), faulty("eth0 is down"), false},
		"mended":                     {lost(1), lost(), false},
		"the first look":             {Status{}, lost(1), false},
	} {
		if got := row.first.IsConfirmedBy(row.second); got != row.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

func TestRates(t *testing.T) {
	before := Judge(surveyOf(), now)
	after := Judge(surveyOf(func(s *Survey) {
		s.Resources[0].Traffic.Buckets[0] = clusterip.Count{Packets: 32, Bytes: 1300}
		s.Resources[0].Traffic.Buckets[3] = clusterip.Count{Packets: 1, Bytes: 1} // it has been away meanwhile
	}), now.Add(2*time.Second))
	after.Since(before)
	buckets := after.Resources[0].Buckets
	if rate := buckets[0].Traffic.PacketsPerSecond; rate == nil || *rate != 10 {
		t.Errorf("packets per second of bucket 0: %v, want 10", rate)
	}
	if rate := buckets[0].Traffic.BytesPerSecond; rate == nil || *rate != 50 {
		t.Errorf("bytes per second of bucket 0: %v, want 50", rate)
	}
	if rate := buckets[3].Traffic.PacketsPerSecond; rate != nil {
		t.Errorf("bucket 3's counter began anew, but has the rate %v", *rate)
	}
	if buckets[1].Traffic != nil {
		t.Error("another node's bucket has a counter")
	}
	if rate := after.Resources[0].Foreign.PacketsPerSecond; rate == nil || *rate != 0 {
		t.Errorf("foreign packets per second: %v, want 0", rate)
	}
	isValid(t, "status", after)
}
