package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/tests/harness"
	"ocf-clusterip/tests/lan"
)

// A flood is packets that a node takes in: a cable between two namespaces has the receiver's work done by the sender.
type flood struct {
	name     string
	drain    string // "": nothing is installed
	owned    bool
	protocol byte
	laps     []time.Duration // for each packet
}

const (
	floodSources = 256
	floodPackets = 200_000
)

// floods measures what a packet costs until it would be handed to TCP or UDP, where all are dropped.
func floods(ctx context.Context, p *progress, network *lan.Network, agent, scratch string, quick bool) ([]*flood, error) {
	rounds := 7
	if quick {
		rounds = 1
	}
	all := []*flood{
		{name: "nothing installed, UDP", protocol: unix.IPPROTO_UDP, owned: true},
		{name: "nothing installed, TCP", protocol: unix.IPPROTO_TCP, owned: true},
	}
	for _, drain := range []string{"0", "600"} {
		all = append(all,
			&flood{name: "of a foreign bucket, TCP, drain=" + drain, drain: drain, protocol: unix.IPPROTO_TCP},
			&flood{name: "of an owned bucket, UDP, drain=" + drain, drain: drain, owned: true, protocol: unix.IPPROTO_UDP},
			&flood{name: "of an owned bucket, TCP, drain=" + drain, drain: drain, owned: true, protocol: unix.IPPROTO_TCP})
	}
	for round := range rounds {
		for _, f := range all {
			p.report("packets: %s, round %d of %d", f.name, round+1, rounds)
			if err := f.run(ctx, network, agent, scratch); err != nil {
				return nil, fmt.Errorf("packets: %s: %w", f.name, err)
			}
		}
	}
	return all, nil
}

// run installs two buckets, of which the node owns one or both, and sends packets.
func (f *flood) run(ctx context.Context, network *lan.Network, agent, scratch string) (err error) {
	const buckets = 2
	node := network.Nodes[0]
	target, mac := node.Addr, node.MAC
	call := func(action string, bucket int) error {
		return node.Do(func() error {
			env := ours(scratch, action, bucket, buckets).With(harness.Parameters{"drain": f.drain}.Vars())
			_, err := execute(ctx, env.List(), []string{agent, action})
			return err
		})
	}
	if f.drain != "" {
		target = netip.MustParseAddr(ourAddress)
		cluster := clusterip.DerivedMAC(clusterip.Multicast, target)
		mac = cluster[:]
		for bucket := range buckets {
			if bucket > 0 && !f.owned {
				break
			}
			if err := call("start", bucket); err != nil {
				return err
			}
			defer func() { err = errors.Join(err, call("stop", bucket)) }()
		}
	}
	end := fmt.Sprintf(
		"table ip bench { chain end { type filter hook input priority 2147483647; ip daddr %s meta l4proto { tcp, udp } drop; }; }",
		target,
	)
	for _, command := range [][]string{{"nft", end}, {"nft", "delete table ip bench"}} {
		r := node.Run(ctx, []string{"PATH=/usr/sbin:/usr/bin"}, command...)
		if r.Err != nil || r.ExitCode != 0 {
			return fmt.Errorf("%s: %w %s", strings.Join(command, " "), r.Err, r.Stderr)
		}
		if command[1] != end {
			break
		}
		if err := network.Client.Do(func() error { return f.send(ctx, network, target, mac) }); err != nil {
			return err
		}
	}
	return nil
}

// send sends the packets of sources whose bucket is the one that matters, in turns.
func (f *flood) send(ctx context.Context, network *lan.Network, target netip.Addr, mac net.HardwareAddr) error {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	link, err := net.InterfaceByName(lan.NIC)
	if err != nil {
		return err
	}
	to := &unix.SockaddrLinklayer{Ifindex: link.Index}
	var frames [][]byte
	for _, source := range network.Sources(8 * floodSources) {
		bucket := clusterip.BucketOf(
			clusterip.SourceIP,
			clusterip.XTCluster,
			clusterip.Flow{Source: source},
			clusterip.DefaultSeed(netip.MustParseAddr(ourAddress)),
			2,
		)
		if (f.owned || bucket == 1) && len(frames) < floodSources {
			frames = append(frames, f.frame(source, target, network.Client.MAC, mac))
		}
	}
	lap := func(packets int) error {
		for i := range packets {
			if err := unix.Sendto(fd, frames[i%len(frames)], 0, to); err != nil {
				return err
			}
		}
		return ctx.Err()
	}
	if err := lap(floodPackets / 20); err != nil { // fills conntrack and the caches
		return err
	}
	begin := time.Now()
	err = lap(floodPackets)
	f.laps = append(f.laps, time.Since(begin)/floodPackets)
	return err
}

// frame is a datagram, or a segment in the middle of a connection, of 20 bytes.
func (f *flood) frame(source, target netip.Addr, from, to net.HardwareAddr) []byte {
	b := slices.Concat(to, from, []byte{0x08, 0x00})
	header := []byte{0x45, 0, 0, 40, 0, 0, 0, 0, 64, f.protocol, 0, 0}
	header = slices.Concat(header, source.AsSlice(), target.AsSlice())
	binary.BigEndian.PutUint16(header[10:], checksum(header))
	payload := make([]byte, 20)
	binary.BigEndian.PutUint16(payload, 40000)
	binary.BigEndian.PutUint16(payload[2:], 9)
	pseudo := slices.Concat(source.AsSlice(), target.AsSlice(), []byte{0, f.protocol, 0, 20})
	if f.protocol == unix.IPPROTO_TCP {
		payload[12], payload[13] = 5<<4, 0x10 // no options; ACK
		binary.BigEndian.PutUint16(payload[16:], checksum(slices.Concat(pseudo, payload)))
	} else {
		binary.BigEndian.PutUint16(payload[4:], 20)
		binary.BigEndian.PutUint16(payload[6:], checksum(slices.Concat(pseudo, payload)))
	}
	return slices.Concat(b, header, payload)
}

// checksum is the Internet checksum of an even number of bytes (RFC 1071).
func checksum(b []byte) uint16 {
	var sum uint32
	for word := range slices.Chunk(b, 2) {
		sum += uint32(binary.BigEndian.Uint16(word))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// floodTable shows each result beside that of the same packet to an address of the node's own.
func (r results) floodTable() string {
	of := func(f *flood) float64 {
		laps := slices.Clone(f.laps)
		slices.Sort(laps)
		return float64(laps[len(laps)/2])
	}
	base := map[byte]float64{}
	var t table
	t.row("", "ns", "more than with nothing installed")
	for _, f := range r.floods {
		if f.drain == "" {
			base[f.protocol] = of(f)
			t.row(f.name, fmt.Sprintf("%.0f", of(f)), "")
			continue
		}
		t.row(f.name, fmt.Sprintf("%.0f", of(f)), fmt.Sprintf("%+.0f ns, %.2f times", of(f)-base[f.protocol], of(f)/base[f.protocol]))
	}
	return t.String()
}
