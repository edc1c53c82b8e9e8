//go:build system

package earlydrop

import (
	"encoding/hex"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/kernel/nftables"
)

// A wire sends frames into eth0, and hears what its ingress hook accepts: a socket for one protocol is behind it.
type wire struct {
	t      *testing.T
	sender int
	heard  map[uint16]int
}

func newWire(t *testing.T) wire {
	t.Helper()
	open := func(protocol uint16, name string) int {
		device, err := netlink.LinkByName(name)
		if err != nil {
			t.Fatal(err)
		}
		socket, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err == nil {
			t.Cleanup(func() { _ = unix.Close(socket) })
			err = unix.Bind(socket, &unix.SockaddrLinklayer{Protocol: networkOrder(protocol), Ifindex: device.Attrs().Index})
		}
		if err == nil {
			err = unix.SetsockoptTimeval(socket, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 20})
		}
		if err == nil {
			err = unix.SetsockoptInt(socket, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20)
		}
		if err != nil {
			t.Fatal(err)
		}
		return socket
	}
	// Frames that are sent on one processor stay in order.
	var one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &one); err != nil {
		t.Fatal(err)
	}
	for cpu, chosen := 0, false; cpu < len(one)*64; cpu++ {
		if one.IsSet(cpu) && chosen {
			one.Clear(cpu)
		}
		chosen = chosen || one.IsSet(cpu)
	}
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		t.Fatal(err)
	}
	return wire{t, open(0, "peer"), map[uint16]int{
		unix.ETH_P_IP: open(unix.ETH_P_IP, "eth0"), unix.ETH_P_IPV6: open(unix.ETH_P_IPV6, "eth0"),
	}}
}

// accepted sends frames, and returns those that were heard.
func (w wire) accepted(frames [][]byte) map[string]bool {
	w.t.Helper()
	other := netip.MustParseAddr("192.0.2.1")
	other6 := netip.MustParseAddr("2001:db8:ffff::1")
	layout := layoutOf(other, other6)
	last := map[uint16][]byte{unix.ETH_P_IP: frameTo(layout, other, other), unix.ETH_P_IPV6: frameTo(layout, other6, other6)}
	for _, frame := range slices.Concat(frames, [][]byte{last[unix.ETH_P_IP], last[unix.ETH_P_IPV6]}) {
		if _, err := unix.Write(w.sender, frame); err != nil {
			w.t.Fatalf("send a frame of %d bytes: %v", len(frame), err)
		}
	}
	all := map[string]bool{}
	buffer := make([]byte, 2048)
	for protocol, socket := range w.heard {
		for {
			n, err := unix.Read(socket, buffer)
			if err != nil {
				w.t.Fatalf("the last frame was not heard: %v", err)
			}
			if string(buffer[:n]) == string(last[protocol]) {
				break
			}
			all[string(buffer[:n])] = true
		}
	}
	return all
}

// What the kernel accepts with our own rules, the programs pass; and the model of the other test is right.
func TestTheProgramDropsNothingThatTheKernelAccepts(t *testing.T) {
	newSite(t, false)
	rules, err := nftables.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rules.Close() }()
	r, all, w := random(t), loadAll(t), newWire(t)
	const perLayout, share = 200, 4
	var dropped, refused int
	for judged := 0; judged < *packets/share; judged += perLayout {
		layout := randomLayout(r)
		if !clusterip.ZeroSeedFits(layout.HashMode) {
			layout.Seed |= 1
		}
		pass := randomBuckets(r, layout)
		all.set(t, layout, pass)
		for _, step := range []clusterip.Step{
			clusterip.RemoveTables{Address: layout.Address()}, clusterip.InstallTables{Layout: layout, Keep: pass},
		} {
			if err := rules.ApplyTables(t.Context(), step); err != nil {
				t.Fatal(err)
			}
		}
		frames := sendable(r, layout, perLayout)
		accepted := w.accepted(frames)
		for _, frame := range frames {
			isAccepted := accepted[string(frame)]
			if !isAccepted {
				refused++
			}
			if model := opinionOf(frame, layout, pass); !model.unknown && model.accepts != isAccepted {
				t.Fatalf("the rules accept it: %v; the model says: %v\n%s\n%+v\nown %v", isAccepted, model.accepts, hex.Dump(frame), layout, pass)
			}
			for symbol := range all.programs {
				if len(frame) < 54 && symbol == nameTC || !all.drops(t, symbol, frame) {
					continue
				}
				dropped++
				if isAccepted {
					t.Fatalf("%s drops what the rules accept\n%s\n%+v\nown %v", symbol, hex.Dump(frame), layout, pass)
				}
			}
		}
	}
	t.Logf("the rules refused %d packets; the programs dropped %d times", refused, dropped)
}

// sendable returns random frames that fit into the MTU and are heard: IPv4 and IPv6, without a tag.
func sendable(r *rand.Rand, layout clusterip.Layout, n int) [][]byte {
	var frames [][]byte
	for len(frames) < n {
		frame := randomFrame(r, layout)
		if isIP := string(frame[12:14]) == "\x08\x00" || string(frame[12:14]) == "\x86\xdd"; isIP && len(frame) <= 1514 {
			frames = append(frames, frame)
		}
	}
	return frames
}

// A frame of another VLAN passes. A tag with VLAN 0 is only a priority: tc sees the packet without it, XDP with it.
func TestFramesOfOtherVLANsPass(t *testing.T) {
	for name, way := range ways(t) {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, way.oldTC)
			w := newWire(t)
			layout := layoutOf(shared4)
			s.attach(way.as)
			s.apply(clusterip.SetEarlyDrop{Layout: layout})
			frame := frameTo(layout, shared4, netip.MustParseAddr("198.51.100.7"))
			tagged := func(kind, id byte) []byte {
				return slices.Concat(frame[:12], []byte{kind, 0xa8 * (kind >> 3 & 1), 0xe0, id}, frame[12:])
			}
			for name, row := range map[string]struct {
				frame          []byte
				atXDP, atOther uint64
			}{
				"no tag": {frame, 1, 1}, "VLAN 0": {tagged(0x81, 0), 0, 1},
				"VLAN 5": {tagged(0x81, 5), 0, 0}, "VLAN 5 of 802.1ad": {tagged(0x88, 5), 0, 0},
			} {
				want := row.atOther
				if way.as == clusterip.EarlyDropXDP {
					want = row.atXDP
				}
				before := s.observe(layout).Dropped
				w.accepted([][]byte{row.frame})
				sum := before.Plus(clusterip.Count{Packets: want, Bytes: want * uint64(len(frame)-14)})
				if dropped := s.observe(layout).Dropped; dropped != sum {
					t.Errorf("%s: dropped %+v, before %+v", name, dropped, before)
				}
			}
		})
	}
}
