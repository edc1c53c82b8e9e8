package firewall

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
	"golang.org/x/sys/unix"
)

// iptables' matches and targets, by name, as iptables-nft and iptables-legacy have them in common.

// isForSome returns whether a match holds for some clients, or some of the time.
func isForSome(match string) bool {
	return slices.Contains([]string{
		"limit", "hashlimit", "recent", "connlimit", "statistic", "geoip", "mac", "iprange", "quota", "time",
	}, match)
}

// targetAction returns what a target does, apart from one that is a chain. One that is not known may drop.
func targetAction(target string) (does action, known bool) {
	switch target {
	case "DROP", "REJECT", "TARPIT":
		return drop, true
	case "ACCEPT", "NFQUEUE", "QUEUE", "TPROXY", "SNAT", "MASQUERADE":
		return accept, true
	case "RETURN":
		return comeBack, true
	case "DNAT", "REDIRECT":
		return redirect, true
	case "NOTRACK":
		return untrack, true
	case "", "AUDIT", "CHECKSUM", "CLASSIFY", "CLUSTERIP", "CONNMARK", "CONNSECMARK", "CT", "DSCP", "ECN", "HL", "HMARK", "IDLETIMER",
		"LED", "LOG", "MARK", "NFLOG", "RATEEST", "SECMARK", "SET", "TCPMSS", "TCPOPTSTRIP", "TEE", "TOS", "TRACE", "TTL", "ULOG":
		return goOn, true
	default:
		return drop, false
	}
}

// targetOutcome judges a target for which nf_tables has no expression.
func targetOutcome(e *expr.Target) []outcome {
	does, known := targetAction(e.Name)
	o := outcome{match: yes, action: does}
	switch {
	case !known:
		o.match = perhaps
	case does == redirect:
		o.to = targetDestination(e)
	case e.Name == "CT":
		const notrack = 1 // XT_CT_NOTRACK, the first field of struct xt_ct_target_info
		if info, ok := e.Info.(*xt.Unknown); !ok || len(*info) < 2 || binary.NativeEndian.Uint16(*info)&notrack != 0 {
			o.action = untrack
		}
	}
	if o.action == goOn {
		return nil
	}
	return []outcome{o}
}

// targetDestination leaves the destination open if it is written in an unknown way. The first address of a range stands for all of them.
func targetDestination(e *expr.Target) destination {
	to := destination{here: e.Name == "REDIRECT"}
	var ranges []xt.NatRange
	switch info := e.Info.(type) {
	case *xt.NatRange:
		ranges = []xt.NatRange{*info}
	case *xt.NatRange2:
		ranges = []xt.NatRange{info.NatRange}
	case *xt.NatIPv4MultiRangeCompat:
		for _, r := range *info {
			ranges = append(ranges, xt.NatRange(r))
		}
	}
	for _, r := range ranges {
		if host, ok := netip.AddrFromSlice(r.MinIP); ok && !to.here {
			to.host = host.Unmap()
		}
		if r.Flags&uint(xt.NatRangeProtoSpecified) != 0 && r.MinPort == r.MaxPort {
			to.port = r.MinPort
		}
	}
	return to
}

// extension judges a match for which nf_tables has no expression.
func (p packet) extension(e *expr.Match) match {
	switch info := e.Info.(type) {
	case *xt.Comment:
		return yes
	case *xt.Tcp:
		isPlain := p.protocol == unix.IPPROTO_TCP && (syn&info.FlagsMask == info.FlagsCmp) != (info.InvFlags&xt.TcpInvFlags != 0)
		open := yes
		if info.Option != 0 {
			open = perhaps
		}
		return min(is(isPlain), open,
			p.ports(info.SrcPorts, info.DstPorts, info.InvFlags&xt.TcpInvSrcPorts != 0, info.InvFlags&xt.TcpInvDestPorts != 0))
	case *xt.Udp:
		return min(is(p.protocol == unix.IPPROTO_UDP),
			p.ports(info.SrcPorts, info.DstPorts, info.InvFlags&xt.UdpInvSrcPorts != 0, info.InvFlags&xt.UdpInvDestPorts != 0))
	case *xt.ConntrackMtinfo3:
		return p.conntrack(info)
	case *xt.AddrTypeV1:
		const invertDestination, others = 1 << 1, 1<<0 | 1<<2 | 1<<3 // XT_ADDRTYPE_*
		if info.Source != 0 || info.Flags&others != 0 || p.forwarded {
			return perhaps
		}
		return is((info.Dest&(1<<unix.RTN_LOCAL) != 0) != (info.Flags&invertDestination != 0))
	}
	if isForSome(e.Name) {
		return some
	}
	return perhaps
}

// ports judges ranges of source and destination ports, each of which may be inverted.
func (p packet) ports(from, to [2]uint16, notFrom, notTo bool) match {
	source, destination := some, p.asksFor(to[0], to[1])
	if from == [2]uint16{0, 0xffff} {
		source = yes
	}
	if notFrom {
		source = not(source)
	}
	if notTo {
		destination = not(destination)
	}
	return min(source, destination)
}

// conntrack judges -m conntrack --ctstate, whose bits are those of nf_tables (XT_CONNTRACK_STATE_BIT). Other conditions of that match are
// left open.
func (p packet) conntrack(info *xt.ConntrackMtinfo3) match {
	const redirected = 1 << 7 // XT_CONNTRACK_STATE_DNAT
	states := uint32(info.StateMask)
	has := is(states&expr.CtStateBitNEW != 0 || states&redirected != 0 && p.redirected)
	if info.InvertFlags&uint16(xt.ConntrackState) != 0 {
		has = not(has)
	}
	switch {
	case info.MatchFlags&uint16(xt.ConntrackState) == 0:
		return perhaps
	case info.MatchFlags&^uint16(xt.ConntrackState|xt.ConntrackStateAlias) != 0:
		return min(has, perhaps)
	default:
		return has
	}
}
