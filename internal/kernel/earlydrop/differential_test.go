//go:build system

package earlydrop

import (
	"encoding/binary"
	"encoding/hex"
	"flag"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/services"
)

var (
	packets = flag.Int("packets", 200_000, "how many packets the differential test judges")
	seed    = flag.Uint64("seed", 0, "what decides which; 0: a new number")
)

// The verdicts of the programs.
const (
	xdpDrop, xdpPass = 1, 2
	tcDrop, tcPass   = 2, 0xffffffff
)

// loadedPrograms are the three programs on one set of maps, with what they return to drop.
type loadedPrograms struct {
	maps     *maps
	programs map[string]*ebpf.Program
}

func loadAll(t testing.TB) loadedPrograms {
	t.Helper()
	m, err := makeMaps(testMemory)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.close)
	all := loadedPrograms{m, map[string]*ebpf.Program{}}
	symbols := []string{nameXDP, nameTC}
	if isLinux(t, 5, 18) {
		symbols = append(symbols, symbolXDPFrags)
	}
	for _, symbol := range symbols {
		loaded, err := load(variant{symbol: symbol, name: symbol}, m)
		if err != nil {
			t.Fatalf("%s: %+v", symbol, err)
		}
		t.Cleanup(func() { _ = loaded.Close() })
		if _, err := withMemory(func() (uint32, error) { // the first run in a process tries what the kernel knows
			return loaded.Run(&ebpf.RunOptions{Data: make([]byte, 64)}) //nolint:mnd // a frame
		}); err != nil {
			t.Fatalf("%s: %v", symbol, err)
		}
		all.programs[symbol] = loaded
	}
	return all
}

// drops runs a program.
func (l loadedPrograms) drops(t testing.TB, symbol string, frame []byte) bool {
	t.Helper()
	verdict, err := l.programs[symbol].Run(&ebpf.RunOptions{Data: frame})
	if err != nil {
		t.Fatalf("%s: run it on %d bytes: %v", symbol, len(frame), err)
	}
	drop, pass := uint32(xdpDrop), uint32(xdpPass)
	if symbol == nameTC {
		drop, pass = tcDrop, tcPass
	}
	if verdict != drop && verdict != pass {
		t.Fatalf("%s returns %d", symbol, verdict)
	}
	return verdict == drop
}

// An opinion is what our rules in nf_tables do with a frame.
type opinion struct {
	accepts bool
	plain   bool // it is of the kind that the program judges too, not only passes on
	unknown bool // the model does not look behind a header, so it says that the frame is accepted
}

// opinionOf is a model of internal/kernel/nftables/ingress.go, and of what the kernel knows of a frame at that hook
// (nft_set_pktinfo_ipv4_validate and nft_set_pktinfo_ipv6_validate in include/net/netfilter).
func opinionOf(frame []byte, layout clusterip.Layout, pass []clusterip.Bucket) opinion {
	other := opinion{accepts: true}
	if len(frame) < 14 {
		return other
	}
	packet := frame[14:]
	var source, destination netip.Addr
	var protocol byte
	var header, icmp int
	fragment, later, valid, plain := false, false, false, false
	errors := []byte{3, 11, 12}
	switch binary.BigEndian.Uint16(frame[12:]) {
	case unix.ETH_P_IP:
		if len(packet) < 20 {
			return other
		}
		source, destination = netip.AddrFrom4([4]byte(packet[12:])), netip.AddrFrom4([4]byte(packet[16:]))
		offset, total := binary.BigEndian.Uint16(packet[6:]), int(binary.BigEndian.Uint16(packet[2:]))
		header = int(packet[0]&0xf) * 4
		valid = packet[0]>>4 == 4 && header >= 20 && total <= len(packet) && total >= header
		protocol, icmp = packet[9], unix.IPPROTO_ICMP
		fragment, later = offset&0x3fff != 0, offset&0x1fff != 0
		plain = valid && header == 20 && !fragment && total >= header+4
	case unix.ETH_P_IPV6:
		if len(packet) < 40 {
			return other
		}
		source, destination = netip.AddrFrom16([16]byte(packet[8:])), netip.AddrFrom16([16]byte(packet[24:]))
		header, icmp = 40, unix.IPPROTO_ICMPV6
		length := int(binary.BigEndian.Uint16(packet[4:]))
		protocol, errors = packet[6], []byte{1, 2, 3, 4, 135, 136}
		valid = packet[0]>>4 == 6 && header+length <= len(packet)
		if slices.Contains([]byte{0, 43, 44, 50, 51, 59, 60, 135, 139, 140, 253, 254}, protocol) {
			return opinion{accepts: true, unknown: true}
		}
		plain = valid && length >= 4
	default:
		return other
	}
	if !slices.Contains(layout.Addresses(), destination) {
		return other
	}
	has := func(bytes int) bool { return valid && !later && len(packet) >= header+bytes }
	isICMP := valid && int(protocol) == icmp
	if isICMP && later { // some kernels take the first byte of a later fragment for the type (nft_payload_fast_eval)
		return opinion{accepts: true, unknown: true}
	}
	if isICMP && has(1) && slices.Contains(errors, packet[header]) {
		return other
	}
	reply := map[int]byte{unix.IPPROTO_ICMP: 0, unix.IPPROTO_ICMPV6: 129}[icmp]
	isEchoReply := isICMP && has(1) && packet[header] == reply
	plain = plain && !isEchoReply && clusterip.MAC(frame[:6]) == layout.MACs.Of(destination)
	owns := func(b clusterip.Bucket) opinion { return opinion{accepts: slices.Contains(pass, b), plain: plain} }
	flow := clusterip.Flow{Source: netip.PrefixFrom(source, layout.HashPrefixes.Of(source)).Masked().Addr()}
	hash := func() opinion {
		return owns(clusterip.BucketOf(layout.HashMode, layout.HashCompat, flow, layout.Seed, layout.Buckets))
	}
	name := map[byte]string{6: "tcp", 17: "udp", 132: "sctp", 136: "udplite", 33: "dccp"}[protocol]
	if fragment || len(layout.Services) == 0 && (!layout.HashMode.Ports() || !valid || name == "") {
		return hash()
	}
	var destinationPort uint16
	if valid && name != "" {
		switch {
		case len(layout.Services) > 0 && !has(4):
			return owns(0) // the rule of the services does not match
		case !has(2 * layout.HashMode.PortWords()):
			return opinion{plain: plain}
		}
		if has(2) {
			flow.SourcePort = binary.BigEndian.Uint16(packet[header:])
		}
		if has(4) {
			destinationPort = binary.BigEndian.Uint16(packet[header+2:])
			flow.DestinationPort = destinationPort
		}
	}
	if len(layout.Services) == 0 {
		return hash()
	}
	if isICMP && slices.Contains(layout.Services, services.ICMP) {
		return hash()
	}
	isListed := func(s services.Service) bool { return s.Holds(name, destinationPort) }
	if valid && name != "" && slices.ContainsFunc(layout.Services, isListed) {
		return hash()
	}
	return owns(0)
}

// random returns what the flag decides.
func random(t *testing.T) *rand.Rand {
	t.Helper()
	chosen := *seed
	if chosen == 0 {
		chosen = uint64(time.Now().UnixNano())
	}
	t.Logf("-seed %d", chosen)
	return rand.New(rand.NewPCG(chosen, 0))
}

// set gives the program a layout, and returns whether it has more services than the program knows.
func (l loadedPrograms) set(t testing.TB, layout clusterip.Layout, pass []clusterip.Bucket) (tooMany bool) {
	t.Helper()
	wanted := map[netip.Addr]record{}
	for _, address := range layout.Addresses() {
		wanted[address] = recordOf(layout, address, pass)
	}
	if err := l.maps.set(wanted); err != nil {
		t.Fatal(err)
	}
	return wanted[shared4].Services == tooManyServices
}

// randomBuckets returns half of them.
func randomBuckets(r *rand.Rand, layout clusterip.Layout) []clusterip.Bucket {
	var pass []clusterip.Bucket
	for b := range layout.Buckets {
		if r.IntN(2) == 0 {
			pass = append(pass, clusterip.Bucket(b))
		}
	}
	return pass
}

// randomLayout returns any layout.
func randomLayout(r *rand.Rand) clusterip.Layout {
	pick := func(n int) bool { return r.IntN(n) == 0 }
	layout := layoutOf(shared4, shared6, other4)
	layout.MACs.IPv6 = clusterip.MAC{0x33, 0x33, 1, 2, 3, 4}
	layout.HashMode = clusterip.HashModes()[r.IntN(3)]
	layout.HashCompat = clusterip.HashCompats()[r.IntN(2)]
	layout.Buckets = 1 + r.Uint32N(64)
	if pick(3) {
		layout.Buckets = 1 + r.Uint32N(1024)
	}
	layout.Seed = clusterip.Seed(r.Uint32())
	if pick(5) {
		layout.Seed = 0
	}
	if pick(3) {
		layout.HashPrefixes = clusterip.PerFamily[int]{IPv4: 1 + r.IntN(32), IPv6: 1 + r.IntN(128)}
	}
	if pick(2) {
		few, ports, width := 1+r.IntN(5), 100, 20
		if pick(4) { // about as many as the program knows
			few, ports, width = 35+r.IntN(15), 400, 3
		}
		for range few {
			one := services.Service{Protocol: services.Protocols()[r.IntN(6)]}
			if one != services.ICMP {
				one.First = uint16(1 + r.IntN(ports))
				one.Last = one.First + uint16(r.IntN(width))
			}
			layout.Services = append(layout.Services, one)
		}
		layout.Services = services.Merge(layout.Services)
	}
	return layout
}

// randomFrame returns a frame to an address of the layout, mostly. Some are damaged.
func randomFrame(r *rand.Rand, layout clusterip.Layout) []byte {
	pick := func(n int) bool { return r.IntN(n) == 0 }
	address := layout.Addresses()[r.IntN(3)]
	if pick(50) {
		address = netip.MustParseAddr("192.168.10.99")
	}
	mac := layout.MACs.Of(address)
	frame := append(mac[:], 2, 0, 0, 0, byte(r.Uint32()), 1)
	if pick(20) {
		frame[r.IntN(6)] ^= byte(1 + r.IntN(255))
	}
	if pick(30) {
		frame = append(frame, []byte{0x81, 0x88}[r.IntN(2)], []byte{0, 0xa8}[r.IntN(2)], byte(r.Uint32()), byte(r.Uint32()))
	}
	protocol := []byte{6, 17, 132, 136, 33, 1, 58, 47, 50, 51, 0, 43, 44, 59, 60, 135, 139, 140, 253, 254, byte(r.Uint32())}[r.IntN(21)]
	if pick(2) {
		protocol = []byte{6, 17}[r.IntN(2)]
	}
	body := make([]byte, 4+r.IntN(60))
	for i := range body {
		body[i] = byte(r.Uint32())
	}
	if pick(2) { // of the services
		body[2], body[3] = 0, byte(r.IntN(120))
	}
	if pick(2) {
		body[0] = []byte{0, 8, 3, 11, 12, 128, 129, 1, 2, 4, 133, 134, 135, 136, 137}[r.IntN(15)]
	}
	switch {
	case pick(15):
		body = body[:r.IntN(5)]
	case pick(1000):
		body = append(body, make([]byte, 5000)...)
	}
	if address.Is4() {
		options := 0
		if pick(20) {
			options = r.IntN(11)
		}
		header := make([]byte, 20+4*options)
		header[0] = 0x45 + byte(options)
		binary.BigEndian.PutUint16(header[2:], uint16(len(header)+len(body)))
		if pick(20) {
			binary.BigEndian.PutUint16(header[6:], []uint16{0x2000, 0x4000, 0x8000, 1, 0x1fff, 0x2001, uint16(r.Uint32())}[r.IntN(7)])
		}
		header[8], header[9] = byte(r.Uint32()), protocol
		binary.BigEndian.PutUint32(header[12:], r.Uint32())
		copy(header[16:], address.AsSlice())
		frame = append(append(append(frame, 0x08, 0x00), header...), body...)
	} else {
		header := make([]byte, 40)
		header[0] = 0x60
		binary.BigEndian.PutUint16(header[4:], uint16(len(body)))
		header[6], header[7] = protocol, byte(r.Uint32())
		binary.BigEndian.PutUint64(header[8:], r.Uint64())
		binary.BigEndian.PutUint64(header[16:], r.Uint64())
		copy(header[24:], address.AsSlice())
		frame = append(append(append(frame, 0x86, 0xdd), header...), body...)
	}
	if pick(10) { // the padding of short frames
		frame = append(frame, make([]byte, r.IntN(20))...)
	}
	if pick(10) {
		for range 1 + r.IntN(3) {
			frame[r.IntN(min(len(frame), 62))] ^= 1 << r.IntN(8)
		}
	}
	if pick(20) {
		frame = frame[:14+r.IntN(len(frame)-13)]
	}
	return frame
}

// The programs drop nothing that our rules would accept; and of a whole packet to the shared MAC, without options, exactly what they would
// drop.
func TestTheProgramDropsOnlyWhatTheRulesWould(t *testing.T) {
	r := random(t)
	all := loadAll(t)
	const perLayout = 500
	var dropped, exact int
	for judged := 0; judged < *packets; {
		layout := randomLayout(r)
		pass := randomBuckets(r, layout)
		tooMany := all.set(t, layout, pass)
		for range perLayout {
			judged++
			frame := randomFrame(r, layout)
			want := opinionOf(frame, layout, pass)
			for symbol := range all.programs {
				// The kernel runs the others only on what fits into a page; and takes no skb without a whole IP header (bpf_prog_test_run_skb).
				if len(frame) > 3000 && symbol != symbolXDPFrags || len(frame) < 54 && symbol == nameTC {
					continue
				}
				drops := all.drops(t, symbol, frame)
				if drops {
					dropped++
				}
				if want.plain && !tooMany {
					exact++
				}
				if drops && want.accepts || want.plain && !tooMany && drops == want.accepts {
					t.Fatalf("%s: drops it: %v; the rules accept it: %v\n%s\n%+v\npass %v", symbol, drops, want.accepts,
						hex.Dump(frame), layout, pass)
				}
			}
		}
	}
	t.Logf("%d packets, in three variants of the program: %d dropped, %d judged exactly", *packets, dropped, exact)
}
