package earlydrop

import (
	"errors"
	"fmt"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	mdlayher "github.com/mdlayher/netlink"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The filter of the clsact qdisc: a priority and a handle that others hardly use.
const (
	filterPriority = 203
	filterHandle   = 1
)

// attach attaches a new program at a place, in place of an old one of ours that is there. Nobody else's is touched.
func (c *Conn) attach(nic int, at place, onto *maps, old *program) error {
	switch at {
	case atXDP:
		return c.attachXDP(nic, onto, old)
	case atTCX:
		return attachTCX(nic, onto, old)
	default:
		return c.attachFilter(nic, onto, old)
	}
}

// xdpVariants returns the variants of XDP that are right for the interface, the best first: those for frames in several buffers fit more
// interfaces, and need Linux 5.18 and a driver that has them.
func (c *Conn) xdpVariants(nic int) ([]variant, error) {
	how, why, err := c.taggingOf(nic)
	switch {
	case err != nil:
		return nil, err
	case how == tagsShown:
		v := variant{symbol: nameXDPTags, name: nameXDPTags, nic: nic}
		return []variant{v.withFrags(), v}, nil
	case how == tagsStay:
		return []variant{variant{symbol: symbolXDPFrags, name: nameXDP}.withFrags(), {symbol: nameXDP, name: nameXDP}}, nil
	default:
		return nil, errors.New(why)
	}
}

func (c *Conn) attachXDP(nic int, onto *maps, old *program) error {
	variants, err := c.xdpVariants(nic)
	for _, v := range variants {
		var loaded *ebpf.Program
		if loaded, err = load(v, onto); err != nil {
			continue
		}
		if old == nil {
			err = setXDP(nic, loaded.FD(), unix.XDP_FLAGS_UPDATE_IF_NOEXIST, 0)
		} else {
			err = setXDP(nic, loaded.FD(), unix.XDP_FLAGS_REPLACE, old.FD())
		}
		_ = loaded.Close()
		if err == nil {
			return nil
		}
	}
	return err
}

// setXDP attaches or detaches (-1) a program in the driver.
func setXDP(nic, program int, flag uint32, expected int) error {
	encoder := mdlayher.NewAttributeEncoder()
	encoder.Nested(unix.IFLA_XDP, func(xdp *mdlayher.AttributeEncoder) error {
		xdp.Int32(unix.IFLA_XDP_FD, int32(program))
		xdp.Uint32(unix.IFLA_XDP_FLAGS, unix.XDP_FLAGS_DRV_MODE|flag)
		if flag == unix.XDP_FLAGS_REPLACE {
			xdp.Int32(unix.IFLA_XDP_EXPECTED_FD, int32(expected))
		}
		return nil
	})
	attributes, err := encoder.Encode()
	if err != nil {
		return err
	}
	header := make([]byte, unix.SizeofIfInfomsg)
	native.PutUint32(header[4:], uint32(nic)) // behind family and type
	return firstError(change(message{kind: unix.RTM_SETLINK, data: append(header, attributes...)}))
}

func attachTCX(nic int, onto *maps, old *program) error {
	loaded, err := load(variant{symbol: nameTC, name: nameTC}, onto)
	if err != nil {
		return err
	}
	defer func() { _ = loaded.Close() }()
	anchor := link.Head()
	if old != nil {
		anchor = link.ReplaceProgram(old.Program)
	}
	return link.RawAttachProgram(link.RawAttachProgramOptions{
		Target: nic, Program: loaded, Attach: ebpf.AttachTCXIngress, Anchor: anchor,
	})
}

// attachFilter adds the clsact qdisc, unless there is one, and the filter, or changes its program. The kernel does both in one system call,
// so that no qdisc is left behind of which nobody knows that it is ours.
func (c *Conn) attachFilter(nic int, onto *maps, old *program) error {
	loaded, err := load(variant{symbol: nameTC, name: nameTC}, onto)
	if err != nil {
		return err
	}
	defer func() { _ = loaded.Close() }()
	has, err := c.hasQdisc(nic)
	if err != nil {
		return err
	}
	onto.MadeQdisc = 0
	if !has || old != nil && old.header.MadeQdisc != 0 {
		onto.MadeQdisc = 1
	}
	var messages []message
	if !has {
		qdisc, err := trafficControl(nic, netlink.HANDLE_CLSACT&0xffff0000, netlink.HANDLE_CLSACT, 0, func(e *mdlayher.AttributeEncoder) {
			e.String(unix.TCA_KIND, "clsact")
		})
		if err != nil {
			return err
		}
		messages = append(messages, message{kind: unix.RTM_NEWQDISC, flags: mdlayher.Create | mdlayher.Excl, data: qdisc})
	}
	filter, err := trafficControl(nic, filterHandle, netlink.HANDLE_MIN_INGRESS, filterPriority<<16|uint32(networkOrder(unix.ETH_P_ALL)),
		func(e *mdlayher.AttributeEncoder) {
			e.String(unix.TCA_KIND, "bpf")
			e.Nested(unix.TCA_OPTIONS, func(bpf *mdlayher.AttributeEncoder) error {
				bpf.Uint32(tcaBPFFD, uint32(loaded.FD()))
				bpf.String(tcaBPFName, nameTC)
				bpf.Uint32(tcaBPFFlags, tcaBPFFlagActDirect)
				bpf.Uint32(tcaBPFFlagsGen, tcaCLSFlagsSkipHW)
				return nil
			})
		})
	if err != nil {
		return err
	}
	flags := mdlayher.Create
	if old == nil {
		flags |= mdlayher.Excl // somebody else may have a filter with this priority and handle
	}
	errs := change(append(messages, message{kind: unix.RTM_NEWTFILTER, flags: flags, data: filter})...)
	err = errs[len(errs)-1]
	if made := len(errs) > 1 && errs[0] == nil; !has && !made { // somebody else was faster
		onto.MadeQdisc = 0
		if err != nil && !errors.Is(errs[0], unix.EEXIST) { // the filter lacks the qdisc
			err = fmt.Errorf("add the clsact qdisc (module sch_ingress): %w", errs[0])
		}
	} else if made && err != nil {
		_ = c.removeQdisc(nic)
	}
	return err
}

// detach detaches a program of ours.
func (c *Conn) detach(nic int, p program) error {
	var err error
	switch p.place {
	case atXDP:
		err = setXDP(nic, -1, unix.XDP_FLAGS_REPLACE, p.FD())
	case atTCX:
		err = link.RawDetachProgram(link.RawDetachProgramOptions{Target: nic, Program: p.Program, Attach: ebpf.AttachTCXIngress})
	default:
		err = c.detachFilter(nic, p)
	}
	if err != nil {
		return fmt.Errorf("detach the BPF program from interface %d: %w", nic, err)
	}
	return nil
}

// detachFilter removes the filter; or with it the qdisc, if that is ours and holds nothing else.
func (c *Conn) detachFilter(nic int, p program) error {
	if p.header.MadeQdisc != 0 {
		device := &netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Index: nic}}
		ingress, err := c.netlink.FilterList(device, netlink.HANDLE_MIN_INGRESS)
		if err != nil {
			return fmt.Errorf("list the filters: %w", err)
		}
		egress, err := c.netlink.FilterList(device, netlink.HANDLE_MIN_EGRESS)
		if err != nil {
			return fmt.Errorf("list the filters: %w", err)
		}
		isOther := func(f netlink.Filter) bool {
			bpf, ok := f.(*netlink.BpfFilter)
			return !ok || bpf.Id != p.filter.Id
		}
		if len(egress) == 0 && !slices.ContainsFunc(ingress, isOther) {
			return c.removeQdisc(nic)
		}
	}
	return c.netlink.FilterDel(p.filter)
}

func (c *Conn) removeQdisc(nic int) error {
	return c.netlink.QdiscDel(&netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: nic, Handle: netlink.HANDLE_CLSACT & 0xffff0000, Parent: netlink.HANDLE_CLSACT,
	}})
}

// hasQdisc reports whether the interface has a clsact or an ingress qdisc, which serve alike.
func (c *Conn) hasQdisc(nic int) (bool, error) {
	qdiscs, err := c.netlink.QdiscList(&netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Index: nic}})
	if err != nil {
		return false, fmt.Errorf("list the qdiscs of interface %d: %w", nic, err)
	}
	return slices.ContainsFunc(qdiscs, func(q netlink.Qdisc) bool { return q.Attrs().Parent == netlink.HANDLE_INGRESS }), nil
}

func firstError(errs []error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
