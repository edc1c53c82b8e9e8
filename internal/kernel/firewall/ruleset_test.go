package firewall

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/kernel/nftreply"
	"ocf-clusterip/internal/services"
)

// The rules of these tests are written in the way of `nft --debug=netlink`: a rule is a line of expressions with commas between them. They
// work on register 1, or on the one behind @. Numbers are in hexadecimal.
//
//	table inet f                      or: table inet f dormant
//	set s 2 0016 0050-005a 01bb-      keys of 2 bytes: one, an interval, an open one
//	set s 6 joint 0a000000.0016-0affffff.0050
//	vmap v 2 0016=accept 0050=drop *=jump c
//	chain in input 0 drop             hook, priority and policy; or: chain c
//	meta l4proto, cmp eq 06, payload transport 2 2, cmp eq 0050, drop
type rulesetText struct {
	t       *testing.T
	ruleset ruleset
	table   nftreply.Table
	chain   string
}

var families = map[string]byte{
	"inet": unix.NFPROTO_INET, "ip": unix.NFPROTO_IPV4, "ip6": unix.NFPROTO_IPV6, "arp": unix.NFPROTO_ARP, "netdev": unix.NFPROTO_NETDEV,
	"bridge": unix.NFPROTO_BRIDGE,
}

var operators = map[string]expr.CmpOp{
	"eq": expr.CmpOpEq, "neq": expr.CmpOpNeq, "lt": expr.CmpOpLt, "lte": expr.CmpOpLte, "gt": expr.CmpOpGt, "gte": expr.CmpOpGte,
}

func parse(t *testing.T, text string) []table {
	t.Helper()
	p := rulesetText{t: t, ruleset: ruleset{elements: map[name][]nftreply.Element{}}}
	for line := range strings.Lines(text) {
		if words := strings.Fields(line); len(words) > 0 {
			p.line(words, strings.TrimSpace(line))
		}
	}
	return p.ruleset.filtering()
}

func (p *rulesetText) line(words []string, line string) {
	switch words[0] {
	case "table":
		p.table = nftreply.Table{Family: families[words[1]], Name: words[2]}
		if len(words) > 3 {
			p.table.Flags = 1
		}
		p.ruleset.tables = append(p.ruleset.tables, p.table)
	case "set", "vmap":
		p.set(words)
	case "chain":
		p.chain = words[1]
		c := nftreply.Chain{Family: p.table.Family, Table: p.table.Name, Name: p.chain}
		if len(words) > 2 {
			number, isIP := map[string]uint32{"prerouting": 0, "input": 1, "forward": 2, "output": 3, "postrouting": 4, "ingress": 5}[words[2]]
			if !isIP || p.table.Family == unix.NFPROTO_NETDEV || p.table.Family == unix.NFPROTO_ARP {
				number = 0
			}
			priority, _ := strconv.ParseInt(words[3], 10, 32)
			c.Hook = &nftreply.Hook{Number: number, Priority: int32(priority)}
			c.Policy, c.Type = 1, "filter"
			for _, word := range words[4:] {
				switch {
				case word == "drop":
					c.Policy = 0
				case word == "nat" || word == "route":
					c.Type = word
				case strings.HasSuffix(word, "*"):
					c.Hook.Devices.Prefixes = append(c.Hook.Devices.Prefixes, strings.TrimSuffix(word, "*"))
				default:
					c.Hook.Devices.Names = append(c.Hook.Devices.Names, word)
				}
			}
		}
		p.ruleset.chains = append(p.ruleset.chains, c)
	default:
		r := nftreply.Rule{Family: p.table.Family, Table: p.table.Name, Chain: p.chain, Handle: uint64(len(p.ruleset.rules) + 1)}
		for text := range strings.SplitSeq(line, ", ") {
			r.Expressions.All = append(r.Expressions.All, p.expression(text))
		}
		p.ruleset.rules = append(p.ruleset.rules, r)
	}
}

func unhex(t *testing.T, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(text, ".", ""))
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return b
}

func (p *rulesetText) set(words []string) {
	length, _ := strconv.Atoi(words[2])
	s := nftreply.Set{Family: p.table.Family, Table: p.table.Name, Name: words[1], KeyLength: uint32(length)}
	if words[0] == "vmap" {
		s.DataType = nftreply.VerdictMap
	}
	var elements []nftreply.Element
	joint := false
	for _, word := range words[3:] {
		keys, verdict, isMap := strings.Cut(word, "=")
		first, last, isInterval := strings.Cut(keys, "-")
		var e nftreply.Element
		switch {
		case word == "joint":
			joint = true
			continue
		case keys == "*":
			e.Flags = nftreply.ElementCatchAll
		default:
			e.Key.Value = unhex(p.t, first)
		}
		if isMap {
			v := verdictIn(verdict)
			e.Data.Verdict = &nftreply.Verdict{Code: int32(v.Kind), Chain: v.Chain}
		}
		if joint && isInterval {
			e.KeyEnd.Value = unhex(p.t, last)
		}
		elements = append(elements, e)
		if isInterval && !joint {
			s.Flags = unix.NFT_SET_INTERVAL
			if last != "" { // the kernel lists the first key that does not belong to it
				end := unhex(p.t, last)
				for i := len(end) - 1; i >= 0; i-- {
					if end[i]++; end[i] != 0 {
						break
					}
				}
				elements = append([]nftreply.Element{{Key: nftreply.Data{Value: end}, Flags: nftreply.ElementEnd}}, elements...)
			}
		}
	}
	p.ruleset.sets = append(p.ruleset.sets, s)
	p.ruleset.elements[name{s.Family, s.Table, s.Name}] = elements
}

func verdictIn(text string) *expr.Verdict {
	kind, chain, _ := strings.Cut(text, ":")
	kinds := map[string]expr.VerdictKind{
		"accept": expr.VerdictAccept, "drop": expr.VerdictDrop, "return": expr.VerdictReturn, "jump": expr.VerdictJump, "goto": expr.VerdictGoto,
		"continue": expr.VerdictContinue, "later": 77,
	}
	if k, ok := kinds[kind]; ok {
		return &expr.Verdict{Kind: k, Chain: chain}
	}
	return nil
}

// expression returns what a text such as "payload network 16 4" or "cmp eq 0050" stands for.
func (p *rulesetText) expression(text string) nftreply.Expression {
	text, at, _ := strings.Cut(text, " @")
	register := uint32(1)
	if n, err := strconv.ParseUint(at, 10, 32); err == nil {
		register = uint32(n)
	}
	words := append(strings.Fields(text), "", "", "", "")
	number := func(i int) uint32 {
		n, _ := strconv.ParseUint(words[i], 10, 32)
		return uint32(n)
	}
	var e expr.Any
	if v := verdictIn(words[0]); v != nil {
		words[0], e = "immediate", v
	}
	switch words[0] {
	case "imm":
		words[0], e = "immediate", &expr.Immediate{Register: register, Data: unhex(p.t, words[1])}
	case "meta":
		e = &expr.Meta{Register: register, Key: map[string]expr.MetaKey{
			"protocol": expr.MetaKeyPROTOCOL, "nfproto": expr.MetaKeyNFPROTO, "l4proto": expr.MetaKeyL4PROTO, "iif": expr.MetaKeyIIF,
			"iifname": expr.MetaKeyIIFNAME, "iiftype": expr.MetaKeyIIFTYPE, "pkttype": expr.MetaKeyPKTTYPE, "mark": expr.MetaKeyMARK,
		}[words[1]]}
	case "set-mark":
		words[0], e = "meta", &expr.Meta{Register: register, SourceRegister: true, Key: expr.MetaKeyMARK}
	case "ct":
		e = &expr.Ct{Register: register, Key: map[string]expr.CtKey{
			"state": expr.CtKeySTATE, "status": expr.CtKeySTATUS, "direction": expr.CtKeyDIRECTION, "mark": expr.CtKeyMARK,
		}[words[1]]}
	case "fib":
		toAddress := words[1] == "daddr"
		e = &expr.Fib{Register: register, FlagDADDR: toAddress, ResultADDRTYPE: toAddress, FlagSADDR: words[1] == "saddr", ResultOIF: !toAddress}
	case "payload":
		base := map[string]expr.PayloadBase{
			"link": expr.PayloadBaseLLHeader, "network": expr.PayloadBaseNetworkHeader, "transport": expr.PayloadBaseTransportHeader,
		}
		e = &expr.Payload{DestRegister: register, Base: base[words[1]], Offset: number(2), Len: number(3)}
	case "and", "shift":
		mask := unhex(p.t, words[1])
		bitwise := &expr.Bitwise{SourceRegister: register, DestRegister: register, Len: uint32(len(mask))}
		if words[0] == "and" {
			bitwise.Mask, bitwise.Xor = mask, make([]byte, len(mask))
		}
		words[0], e = "bitwise", bitwise
	case "cmp":
		e = &expr.Cmp{Register: register, Op: operators[words[1]], Data: unhex(p.t, words[2])}
	case "range":
		first, last, _ := strings.Cut(words[2], "-")
		e = &expr.Range{Register: register, Op: operators[words[1]], FromData: unhex(p.t, first), ToData: unhex(p.t, last)}
	case "lookup":
		e = &expr.Lookup{SourceRegister: register, SetName: words[1], Invert: words[2] == "inverted", IsDestRegSet: words[2] == "map"}
	case "dnat":
		nat := &expr.NAT{Type: expr.NATTypeDestNAT, RegAddrMin: number(1), RegAddrMax: number(1), RegProtoMin: number(2)}
		if words[3] != "" {
			nat.RegAddrMax = number(3)
		}
		words[0], e = "nat", nat
	case "snat":
		words[0], e = "nat", &expr.NAT{Type: expr.NATTypeSourceNAT, RegAddrMin: register}
	case "redir":
		e = &expr.Redir{RegisterProtoMin: number(1)}
	case "match", "target":
		info := extensions[strings.TrimPrefix(text, words[0]+" ")]
		if info == nil {
			unknown := xt.Unknown{}
			info = &unknown
		}
		revision := uint32(0)
		switch words[1] {
		case "conntrack":
			revision = 3
		case "addrtype", "REDIRECT":
			revision = 1
		case "DNAT":
			revision = 2
		}
		if words[0] == "match" {
			e = &expr.Match{Name: words[1], Rev: revision, Info: info}
		} else {
			e = &expr.Target{Name: words[1], Rev: revision, Info: info}
		}
	}
	if e == nil {
		return nftreply.Expression{Name: words[0]}
	}
	data, err := expr.MarshalExprData(p.table.Family, e)
	if err != nil {
		p.t.Fatalf("%s: %v", text, err)
	}
	return nftreply.Expression{Name: words[0], Data: data}
}

var anyPort = [2]uint16{0, 0xffff}

// extensions are iptables' matches and targets, as iptables-nft writes them.
var extensions = map[string]xt.InfoAny{
	"comment":           comment("web"),
	"tcp 80":            &xt.Tcp{SrcPorts: anyPort, DstPorts: [2]uint16{80, 80}},
	"tcp not 80":        &xt.Tcp{SrcPorts: anyPort, DstPorts: [2]uint16{80, 80}, InvFlags: xt.TcpInvDestPorts},
	"tcp from 1-99":     &xt.Tcp{SrcPorts: [2]uint16{1, 99}, DstPorts: anyPort},
	"tcp not from 1-99": &xt.Tcp{SrcPorts: [2]uint16{1, 99}, DstPorts: anyPort, InvFlags: xt.TcpInvSrcPorts},
	"tcp syn":           &xt.Tcp{SrcPorts: anyPort, DstPorts: anyPort, FlagsMask: 0x17, FlagsCmp: 0x02},
	"tcp not syn":       &xt.Tcp{SrcPorts: anyPort, DstPorts: anyPort, FlagsMask: 0x17, FlagsCmp: 0x02, InvFlags: xt.TcpInvFlags},
	"tcp option":        &xt.Tcp{SrcPorts: anyPort, DstPorts: anyPort, Option: 7},
	"udp 80":            &xt.Udp{SrcPorts: anyPort, DstPorts: [2]uint16{80, 80}},
	"conntrack new":     state(8, 0, xt.ConntrackState),
	"conntrack not new": state(8, xt.ConntrackState, xt.ConntrackState),
	"conntrack dnat":    state(1<<7, 0, xt.ConntrackState),
	"conntrack more":    state(8, 0, xt.ConntrackState|xt.ConntrackStatus),
	"conntrack other":   state(0, 0, xt.ConntrackStatus),
	"addrtype local":    &xt.AddrTypeV1{Dest: 1 << unix.RTN_LOCAL},
	"addrtype source":   &xt.AddrTypeV1{Source: 1 << unix.RTN_LOCAL},
	"addrtype other":    &xt.AddrTypeV1{Dest: 1 << unix.RTN_LOCAL, Flags: 1 << 1},
	"DNAT 8080":         &xt.NatRange2{NatRange: natRange("172.17.0.2", "172.17.0.2", 8080)},
	"DNAT many":         &xt.NatRange2{NatRange: natRange("172.17.0.2", "172.17.0.9", 8080)},
	"REDIRECT 8080":     redirectRange(),
	"CT notrack":        info(1, 0, 0, 0, 0, 0, 0, 0),
	"CT helper":         info(0, 0, 0, 0, 0, 0, 0, 0),
}

func comment(text string) *xt.Comment {
	c := xt.Comment(text)
	return &c
}

func info(data ...byte) *xt.Unknown {
	u := xt.Unknown(data)
	return &u
}

func state(states uint16, inverted, matched xt.ConntrackFlags) *xt.ConntrackMtinfo3 {
	i := &xt.ConntrackMtinfo3{}
	i.StateMask, i.InvertFlags, i.MatchFlags = states, uint16(inverted), uint16(matched)
	zero := make([]byte, 16)
	for _, address := range []*[]byte{
		(*[]byte)(&i.OrigSrcAddr), (*[]byte)(&i.OrigSrcMask), (*[]byte)(&i.OrigDstAddr), (*[]byte)(&i.OrigDstMask),
		(*[]byte)(&i.ReplSrcAddr), (*[]byte)(&i.ReplSrcMask), (*[]byte)(&i.ReplDstAddr), (*[]byte)(&i.ReplDstMask),
	} {
		*address = zero
	}
	return i
}

func natRange(first, last string, port uint16) xt.NatRange {
	return xt.NatRange{
		Flags: uint(xt.NatRangeProtoSpecified), MinIP: netip.MustParseAddr(first).AsSlice(), MaxIP: netip.MustParseAddr(last).AsSlice(),
		MinPort: port, MaxPort: port,
	}
}

func redirectRange() *xt.NatRange {
	r := natRange("0.0.0.0", "0.0.0.0", 8080)
	return &r
}

// What becomes of a client's first packets to a web server at 192.168.10.3 and 2001:db8::3, by interface eth0: certainly dropped (!),
// perhaps (?), not tracked (~), or nothing of it.
func TestRulesets(t *testing.T) {
	const (
		v4  = "tcp/80 to 192.168.10.3"
		v6  = "tcp/80 to 2001:db8::3"
		tcp = v4 + ", " + v6
		arp = "ARP requests for 192.168.10.3"
		nd  = "neighbour discovery to 2001:db8::3"
		all = tcp + ", " + nd

		in     = "table inet f\nchain in input 0\n"
		inIP   = "table ip f\nchain in input 0\n"
		daddr  = "meta nfproto, cmp eq 02, payload network 16 4, "
		saddr  = "meta nfproto, cmp eq 02, payload network 12 4, "
		port   = "meta l4proto, cmp eq 06, payload transport 2 2, "
		sport  = "meta l4proto, cmp eq 06, payload transport 0 2, "
		toNAT  = "table ip n\nchain pre prerouting -100 nat\n" + port + "cmp eq 0050, "
		filter = "\ntable ip f\nchain in input 0 drop\n"
	)
	for name, row := range map[string]struct {
		text string
		want []string
	}{
		"nothing":                 {in + "counter", nil},
		"everything":              {in + "drop", []string{"! " + all}},
		"the policy":              {"table inet f\nchain in input 0 drop", []string{"! " + all}},
		"a dormant table":         {"table inet f dormant\nchain in input 0 drop", nil},
		"our own table":           {"table inet clusterip-10.0.0.1\nchain in input 0 drop", nil},
		"the way out":             {"table inet f\nchain out output 0 drop\nchain post postrouting 0 drop", nil},
		"a chain of type route":   {"table ip f\nchain pre prerouting 0 drop route", nil},
		"the address":             {in + daddr + "cmp eq c0a80a03, drop", []string{"! " + v4}},
		"another address":         {in + daddr + "cmp eq c0a80a04, drop", nil},
		"all but another address": {in + daddr + "cmp neq c0a80a04, drop", []string{"! " + v4}},
		"a network":               {in + daddr + "and ffff0000, cmp eq c0a80000, drop", []string{"! " + v4}},
		"half of a word":          {in + daddr + "shift 00000000, cmp eq c0a80000, drop", []string{"? " + v4}},
		"a range":                 {in + daddr + "cmp gte c0a80a01, cmp lte c0a80a09, reject", []string{"! " + v4}},
		"a range beside it":       {in + daddr + "cmp gte c0a80a04, cmp lte c0a80a09, reject", nil},
		"outside of a range":      {in + daddr + "range neq c0a80a04-c0a80a09, drop", []string{"! " + v4}},
		"inside of a range":       {in + daddr + "range eq c0a80a01-c0a80a09, drop", []string{"! " + v4}},
		"below":                   {in + port + "cmp lt 0051, drop", []string{"! " + tcp}},
		"not below":               {in + port + "cmp lt 0050, drop", nil},
		"above":                   {in + port + "cmp gt 004f, drop", []string{"! " + tcp}},
		"not above":               {in + port + "cmp gt 0050, drop", nil},
		"the port":                {in + port + "cmp eq 0050, drop", []string{"! " + tcp}},
		"another port":            {in + port + "cmp eq 0051, drop", nil},
		"a set of ports":          {in + "set s 2 0016 0050 01bb\n" + port + "lookup s, drop", []string{"! " + tcp}},
		"a set without it":        {in + "set s 2 0016 01bb\n" + port + "lookup s, drop", nil},
		"all but a set":           {in + "set s 2 0016 01bb\n" + port + "lookup s inverted, drop", []string{"! " + tcp}},
		"a set with all others":   {in + "set s 2 0016 *\n" + port + "lookup s, drop", []string{"! " + tcp}},
		"a set that is not there": {in + port + "lookup s, accept", []string{"? " + tcp}},
		"intervals":               {in + "set s 2 0016-0016 0046-005a\n" + port + "lookup s, drop", []string{"! " + tcp}},
		"intervals without it":    {in + "set s 2 0016-0016 0051-005a 0046-004f\n" + port + "lookup s, drop", nil},
		"an open interval":        {in + "set s 2 0016-0016 0050-\n" + port + "lookup s, drop", []string{"! " + tcp}},
		"addresses with ports": {
			in + "set s 8 c0a80a03.00500000\n" + daddr + "payload transport 2 2 @9, lookup s, drop", []string{"! " + v4},
		},
		"others with ports": {
			in + "set s 8 c0a80a04.00500000\n" + daddr + "payload transport 2 2 @9, lookup s, drop", nil,
		},
		"networks with ports": {
			in + "set s 8 joint c0a80a00.00460000-c0a80aff.005a0000\n" + daddr + "payload transport 2 2 @9, lookup s, drop", []string{"? " + v4},
		},
		"other networks with ports": {
			in + "set s 8 joint c0a80b00.00460000-c0a80bff.005a0000\n" + daddr + "payload transport 2 2 @9, lookup s, drop", nil,
		},
		"some clients with ports": {
			in + "set s 8 joint 0a000000.00460000-0affffff.005a0000\n" + saddr + "payload transport 2 2 @9, lookup s, drop", nil,
		},
		"all clients with ports": {
			in + "set s 8 joint 00000000.00460000-ffffffff.005a0000\n" + saddr + "payload transport 2 2 @9, lookup s, drop", []string{"? " + v4},
		},
		"a map of verdicts":              {in + "vmap v 2 0016=accept 0050=drop\n" + port + "lookup v map", []string{"! " + tcp}},
		"a map without it":               {in + "vmap v 2 0016=accept 0051=drop\n" + port + "lookup v map", nil},
		"a map for all others":           {in + "vmap v 2 0016=accept *=drop\n" + port + "lookup v map", []string{"! " + tcp}},
		"a map for some, and for others": {in + "vmap v 4 0a000001=accept *=drop\n" + saddr + "lookup v map", []string{"? " + v4}},
		"a map with a verdict to come":   {in + "vmap v 2 0050=later\n" + port + "lookup v map", []string{"? " + tcp}},
		"a map to something else":        {in + "set m 2 0050\n" + port + "lookup m map, cmp eq 01, drop", []string{"? " + tcp}},
		"a map of some clients":          {in + "set m 4 0a000001\n" + saddr + "lookup m map, cmp eq 01, drop", []string{"? " + v4}},
		"new ones":                       {in + "ct state, and 08000000, cmp neq 00000000, drop", []string{"! " + all}},
		"established ones":               {in + "ct state, and 02000000, cmp neq 00000000, drop", nil},
		"by the direction":               {in + "ct direction, cmp eq 01, drop", nil},
		"by their mark in conntrack":     {in + "ct mark, cmp eq 07000000, drop", []string{"? " + all}},
		"state before conntrack": {
			"table ip f\nchain pre prerouting -300\nct state, and 02000000, cmp neq 00000000, drop", []string{"? " + v4},
		},
		"by their mark":      {in + "meta mark, cmp eq 07000000, drop", []string{"? " + all}},
		"a mark that is set": {in + "imm 07000000, set-mark, counter, drop", []string{"! " + all}},
		"fragments":          {in + "meta nfproto, cmp eq 02, payload network 6 2, and 1fff, cmp neq 0000, drop", nil},
		"packets that may be cut": {
			in + "meta nfproto, cmp eq 02, payload network 6 2, and 4000, cmp eq 0000, drop", []string{"? " + v4},
		},
		"another interface":          {in + "meta iifname, cmp eq 65746831, drop\nmeta iif, cmp eq 09000000, drop", nil},
		"this interface":             {in + "meta iifname, cmp eq 65746830000000000000000000000000, drop", []string{"! " + all}},
		"interfaces by a pattern":    {in + "meta iifname, cmp eq 657468, drop", []string{"! " + all}},
		"Ethernet":                   {in + "meta iiftype, cmp eq 0100, drop", []string{"! " + all}},
		"some clients":               {in + saddr + "cmp eq c0000201, drop", nil},
		"some networks":              {in + saddr + "and ffffff00, cmp eq c0000200, drop", nil},
		"half of all clients":        {in + saddr + "and 80000000, cmp eq 80000000, drop", []string{"? " + v4}},
		"all other clients":          {in + saddr + "cmp neq c0000201, drop", []string{"? " + v4}},
		"clients in a range":         {in + saddr + "cmp gte 0a000001, cmp lte 0a000009, drop", nil},
		"clients in most of all":     {in + saddr + "cmp gte 01000000, cmp lte efffffff, drop", []string{"? " + v4}},
		"clients of low ports":       {in + sport + "cmp lt 0400, drop", nil},
		"clients of the usual ports": {in + sport + "cmp gte 0400, drop", []string{"? " + tcp}},
		"clients of high ports":      {in + sport + "cmp gt f000, drop", []string{"? " + tcp}},
		"too many":                   {in + "limit, drop", nil},
		"one of many":                {in + "numgen, cmp eq 00000000, drop", nil},
		"what is hashed":             {in + "meta mark, byteorder, hash, cmp eq 01000000, drop", []string{"? " + all}},
		"by an option":               {in + "exthdr, cmp eq 01, drop", []string{"? " + all}},
		"an expression to come":      {in + "future, accept", []string{"? " + all}},
		"beyond the registers": {
			in + "payload network 16 4 @99, cmp eq c0a80a03 @99, drop\ncmp eq 01 @0, drop", []string{"? " + all, "? " + all},
		},
		"a verdict to come":      {in + "later", []string{"? " + all}},
		"a verdict that is none": {in + "continue\naccept\ndrop", nil},
		"an order":               {in + port + "cmp eq 0050, accept\n" + port + "drop", nil},
		"the policy behind some": {
			"table inet f\nchain in input 0 drop\n" + saddr + "cmp eq 0a000001, accept\n" + port + "accept\nmeta l4proto, cmp eq 3a, accept", nil,
		},
		"a jump": {
			in + port + "cmp eq 0050, jump:web\nchain web\nct state, and 02000000, cmp neq 00000000, return\ndrop", []string{"! " + tcp},
		},
		"a jump for others": {in + port + "cmp eq 0016, jump:ssh\nchain ssh\ndrop", nil},
		"a goto": {
			"table inet f\nchain in input 0 drop\ngoto:c\naccept\nchain c\ncounter", []string{"! " + all},
		},
		"our chain of the match cluster": {
			"table ip mangle\nchain pre prerouting -150\njump:clusterip-192.168.10.3\nchain clusterip-192.168.10.3\ndrop", nil,
		},
		"addresses of others":    {in + "fib daddr, cmp neq 02000000, drop", nil},
		"no way back":            {in + "fib saddr, cmp eq 00000000, drop", nil},
		"routes of another kind": {in + "fib mark, cmp eq 00000000, drop", []string{"? " + all}},
		"neighbour discovery":    {in + "meta l4proto, cmp eq 3a, payload transport 0 1, cmp eq 87, drop", []string{"! " + nd}},
		"prerouting":             {"table ip f\nchain pre prerouting -150\n" + port + "cmp eq 0050, drop", []string{"! " + v4}},
		"what is forwarded":      {"table ip f\nchain fwd forward 0 drop", nil},
		"before all else": {
			"table netdev f\nchain in ingress 0 eth0\nmeta protocol, cmp eq 0800, payload link 0 1, cmp eq 03, drop", []string{"! " + v4},
		},
		"before all else, elsewhere": {"table netdev f\nchain in ingress 0 lo drop", nil},
		"before all else, by a prefix": {
			"table netdev f\nchain in ingress 0 et* drop", []string{"! " + v4 + ", " + arp + ", " + v6 + ", " + nd},
		},
		"ingress of inet":      {"table inet f\nchain in ingress 0 eth0 drop", []string{"! " + all}},
		"to another interface": {"table netdev f\nchain in ingress 0 eth0\n" + daddr + "fwd", []string{"! " + v4}},
		"by the kind of packet": {
			"table netdev f\nchain in ingress 0 eth0\nmeta pkttype, cmp neq 00, meta nfproto, cmp eq 02, drop", []string{"? " + v4},
		},
		"multicasts": {in + "meta pkttype, cmp eq 02, drop", nil},
		"ARP": {
			"table arp f\nchain in input 0\npayload network 6 2, cmp eq 0001, payload network 24 4, cmp eq c0a80a03, drop", []string{"! " + arp},
		},
		"ARP for others": {"table arp f\nchain in input 0\npayload network 24 4, cmp eq c0a80a04, drop", nil},
		"bridges":        {"table bridge f\nchain in input 0 drop", nil},
		"no tracking": {
			"table ip f\nchain raw prerouting -300\n" + port + "cmp eq 0050, notrack", []string{"~! " + v4},
		},
		"no tracking, perhaps": {
			"table ip f\nchain raw prerouting -300\nmeta mark, cmp eq 01000000, notrack", []string{"~? " + v4},
		},
		"to user space":               {"table inet f\nchain in input 0 drop\nqueue", nil},
		"another port of the node":    {toNAT + "imm 1f90, redir 1" + filter + port + "cmp eq 0050, accept", []string{"! " + v4}},
		"another port that is let in": {toNAT + "imm 1f90, redir 1" + filter + port + "cmp eq 1f90, accept", nil},
		"another host":                {toNAT + "imm 0a000009, dnat 1" + filter + "counter", nil},
		"another host, not forwarded": {toNAT + "imm 0a000009, dnat 1\ntable ip f\nchain fwd forward 0 drop", []string{"! " + v4}},
		"another host, perhaps not": {
			toNAT + "imm 0a000009, dnat 1\ntable ip f\nchain fwd forward 0\nmeta mark, cmp eq 01000000, drop", nil,
		},
		"another address of the node": {
			toNAT + "imm c0a80a0b, imm 1f90 @2, dnat 1 2" + filter + daddr + "cmp eq c0a80a03, accept", []string{"! " + v4},
		},
		"several hosts":        {toNAT + "imm 0a000008, imm 0a000009 @2, dnat 1 0 2" + filter + "accept", nil},
		"one of several hosts": {toNAT + "meta mark, lookup m map, dnat 1" + filter, []string{"? " + v4, "? " + v4}},
		"elsewhere, perhaps": {
			"table ip n\nchain pre prerouting -100 nat\nmeta mark, cmp eq 01000000, imm 0a000009, dnat 1" + filter, []string{"? " + v4},
		},
		"somewhere": {toNAT + "meta mark, dnat 1" + filter, []string{"? " + v4}},
		"another family": {
			toNAT + "imm 20010db8000000000000000000000009, dnat 1" + filter + "payload network 16 4, cmp eq 20010db8, accept", nil,
		},
		"already redirected": {toNAT + "imm 1f90, redir 1\nchain more prerouting -90 nat\ndrop", nil},
		"what was redirected": {
			toNAT + "imm 1f90, redir 1" + filter + "ct status, and 20000000, cmp neq 00000000, accept", nil,
		},
		"what was not redirected":      {filter + "ct status, and 20000000, cmp neq 00000000, accept", []string{"! " + v4}},
		"the way back":                 {"table ip n\nchain pre prerouting -100 nat\nimm 0a000009, snat\ndrop", nil},
		"iptables: a comment":          {filter + "match comment, accept", nil},
		"iptables: the port":           {filter + "match tcp 80, target ACCEPT", nil},
		"iptables: another port":       {filter + "match tcp not 80, target ACCEPT", []string{"! " + v4}},
		"iptables: some ports":         {in + "match tcp from 1-99, target DROP", nil},
		"iptables: all but some ports": {in + "match tcp not from 1-99, target DROP", []string{"? " + tcp}},
		"iptables: beginnings":         {in + "match tcp syn, target REJECT", []string{"! " + tcp}},
		"iptables: no beginnings":      {in + "match tcp not syn, target REJECT", nil},
		"iptables: an option":          {in + "match tcp option, target REJECT", []string{"? " + tcp}},
		"iptables: datagrams":          {in + "match udp 80, target REJECT", nil},
		"iptables: new ones":           {inIP + "match conntrack new, target REJECT", []string{"! " + v4}},
		"iptables: old ones":           {inIP + "match conntrack not new, target REJECT", nil},
		"iptables: redirected":         {inIP + "match conntrack dnat, target REJECT", nil},
		"iptables: and more":           {inIP + "match conntrack more, target REJECT", []string{"? " + v4}},
		"iptables: by something else":  {inIP + "match conntrack other, target REJECT", []string{"? " + v4}},
		"iptables: local":              {in + "match addrtype local, target REJECT", []string{"! " + all}},
		"iptables: not local":          {in + "match addrtype other, target REJECT", nil},
		"iptables: from local":         {in + "match addrtype source, target REJECT", []string{"? " + all}},
		"iptables: rates":              {in + "match hashlimit, target DROP", nil},
		"iptables: a match to come":    {in + "match future, target DROP", []string{"? " + all}},
		"iptables: a target that logs": {in + "target LOG", nil},
		"iptables: a target to come":   {in + "target FUTURE", []string{"? " + all}},
		"iptables: no tracking":        {"table ip raw\nchain pre prerouting -300\ntarget CT notrack", []string{"~! " + v4}},
		"iptables: a helper":           {"table ip raw\nchain pre prerouting -300\ntarget CT helper", nil},
		"iptables: NOTRACK":            {"table ip raw\nchain pre prerouting -300\ntarget NOTRACK", []string{"~! " + v4}},
		"iptables: a container": {
			toNAT + "target DNAT 8080\ntable ip f\nchain fwd forward 0\n" + port + "cmp eq 1f90, drop", []string{"! " + v4},
		},
		"iptables: containers":             {toNAT + "target DNAT many\ntable ip f\nchain fwd forward 0 drop", []string{"! " + v4}},
		"iptables: another port of ours":   {toNAT + "target REDIRECT 8080" + filter + port + "cmp eq 1f90, accept", nil},
		"iptables: it returns to our hook": {in + "jump:c\ndrop\nchain c\ntarget RETURN", []string{"! " + all}},
	} {
		t.Run(name, func(t *testing.T) {
			layout := clusterip.Layout{
				Prefixes: []netip.Prefix{netip.MustParsePrefix("192.168.10.3/24"), netip.MustParsePrefix("2001:db8::3/64")}, NIC: "eth0", NICIndex: 2,
				Backend: clusterip.NFTables, Services: []services.Service{{Protocol: "tcp", First: 80, Last: 80}},
				MACs: clusterip.PerFamily[clusterip.MAC]{IPv4: clusterip.MAC{3, 1}, IPv6: clusterip.MAC{3, 2}},
			}
			isLocal := func(a netip.Addr) bool { return a == netip.MustParseAddr("192.168.10.11") }
			var got []string
			for _, o := range obstacles(parse(t, row.text), packets(layout, false), isLocal) {
				mark := "? "
				if o.Certain {
					mark = "! "
				}
				if o.Untracks {
					mark = "~" + mark
				}
				got = append(got, mark+strings.Join(o.Packets, ", "))
				if !strings.HasPrefix(o.Show, fmt.Sprintf("nft -a list chain %s ", o.Table)) || o.Rule == "" {
					t.Errorf("%+v", o)
				}
			}
			if !slices.Equal(got, row.want) {
				t.Errorf("%q, want %q", got, row.want)
			}
		})
	}
}

// Whatever expressions a rule has, and in whatever form, it is judged.
func FuzzRule(f *testing.F) {
	text, err := os.ReadFile("../nftreply/testdata/rules.hex")
	if err != nil {
		f.Fatal(err)
	}
	for line := range strings.FieldsSeq(string(text)) {
		data, err := hex.DecodeString(line)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		rules, err := nftreply.All[nftreply.Rule]([]netlink.Message{{Data: data}})
		if err != nil {
			return
		}
		for _, r := range rules {
			rule := nftRule{chain: name{family: r.Family}}
			for _, e := range r.Expressions.All {
				rule.expressions = append(rule.expressions, expression{e.Name, e.Decode(r.Family)})
			}
			for _, o := range rule.judge(web()) {
				if o.match == no {
					t.Errorf("%x: an outcome that does not happen", data)
				}
			}
		}
	})
}
