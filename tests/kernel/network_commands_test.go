//go:build system

package kernel

import (
	"bytes"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/operator/network"
	"ocf-clusterip/tests/lan"
)

// What `network --vendor linux-bridge` prints is run as it is on a switch that delivers the frames to no node before. Two nodes share the
// address, and their ports are named; the third is a bystander.
func TestNetworkCommandsForALinuxBridge(t *testing.T) {
	t.Run("multicast, with a querier", func(t *testing.T) {
		s := newSite(t, lan.Options{Snooping: true, Querier: true}, 4, webIP("ip", dualStack))
		check(t, s.startAll(0, 1, 0, 1))
		awaitSilence(t, s)
		configureSwitch(t, s)
		everyFlow(t, s)
		if heard := countOverheard(t, s); heard > 0 {
			t.Errorf("the bystander got %d frames for the shared MAC", heard)
		}
	})
	t.Run("igmp, with the querier of the commands", func(t *testing.T) {
		s := newSite(t, lan.Options{Snooping: true}, 4, webIP("ip", dualStack, "mac_mode", "igmp"))
		// By default the bridge gives the nodes 10 s to report before it uses its table.
		check(t, s.Switch.Do(func() error {
			return os.WriteFile("/sys/class/net/br0/bridge/multicast_query_response_interval", []byte("100"), 0)
		}))
		check(t, s.startAll(0, 1, 0, 1))
		everyFlow(t, s)
		if countOverheard(t, s) == 0 {
			t.Error("without a querier the bystander got no frame for the shared MAC")
		}
		configureSwitch(t, s)
		for end := time.Now().Add(testTimeout); countOverheard(t, s) > 0; {
			if time.Now().After(end) {
				t.Fatal("the bystander still gets frames for the shared MAC")
			}
		}
		everyFlow(t, s)
	})
	t.Run("unicast, where the ports are spared unknown frames", func(t *testing.T) {
		s := newSite(t, lan.Options{Snooping: true, Querier: true}, 4, webIP("ip", dualStack, "mac_mode", "unicast"))
		check(t, s.startAll(0, 1, 0, 1))
		for _, node := range s.Nodes[:2] {
			check(t, s.Switch.Run(t.Context(), lan.ToolPath, "bridge", "link", "set", "dev", node.Name, "flood", "off").Failure())
		}
		awaitSilence(t, s)
		configureSwitch(t, s)
		everyFlow(t, s)
		if countOverheard(t, s) == 0 {
			t.Error("the bystander got no frame for the shared MAC: the switch has learned it")
		}
	})
}

// configureSwitch runs on the switch what is to be pasted there, and on the client, as if it were a router, what is for routers.
func configureSwitch(t *testing.T, s *site) {
	t.Helper()
	var text bytes.Buffer
	options := network.Options{Vendor: "linux-bridge", Bridge: "br0", Ports: s.Nodes[0].Name + "," + s.Nodes[1].Name}
	if s.spec.MACMode != clusterip.Unicast {
		options.RouterInterface = lan.NIC
	}
	check(t, network.Write(&text, s.spec.Layout(), options, 80))
	var forSwitch, forRouter strings.Builder
	for line := range strings.Lines(text.String()) {
		if strings.HasPrefix(line, "ip neigh ") {
			forRouter.WriteString(line)
		} else {
			forSwitch.WriteString(line)
		}
	}
	check(t, s.Switch.Run(t.Context(), lan.ToolPath, "sh", "-eu", "-c", forSwitch.String()).Failure())
	check(t, s.Client.Run(t.Context(), lan.ToolPath, "sh", "-eu", "-c", forRouter.String()).Failure())
	if forRouter.Len() == 0 {
		return // unicast: the client has the MAC from ARP
	}
	for _, address := range s.spec.Addresses {
		neighbours, err := s.Client.Handle().NeighList(link(t, s.Client, lan.NIC).Attrs().Index, 0)
		check(t, err)
		if !slices.ContainsFunc(neighbours, func(n netlink.Neigh) bool {
			return n.IP.Equal(address.AsSlice()) && n.State == netlink.NUD_PERMANENT && n.HardwareAddr.String() == s.spec.MACs.Of(address).String()
		}) {
			t.Errorf("%s is no permanent neighbour with the shared MAC: %v", address, neighbours)
		}
	}
}

// countOverheard counts the packets to the address that come to the third node while clients ask.
func countOverheard(t *testing.T, s *site) int {
	t.Helper()
	c, err := s.Nodes[2].Capture(lan.NIC, func(f lan.Frame) bool {
		p, ok := f.Packet()
		return ok && !f.Outgoing && slices.Contains(s.spec.Addresses, p.Dst) &&
			slices.ContainsFunc([]netip.Addr{shared, shared6}, func(a netip.Addr) bool {
				return f.Destination.String() == s.spec.MACs.Of(a).String()
			})
	})
	check(t, err)
	for _, address := range s.spec.Addresses {
		probe(
			t,
			s.Network,
			lan.Traffic{Target: address, Sources: s.SourcesLike(address, 8), Protos: []lan.Proto{lan.ICMP}, Timeout: 100 * time.Millisecond},
		)
	}
	return len(captured(t, c))
}
