package earlydrop

import (
	"errors"
	"fmt"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	mdlayher "github.com/mdlayher/netlink"
	"github.com/safchain/ethtool"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// An XDP program must see the VLAN tag of a frame, or it would judge frames of other VLANs. Mostly the hardware has taken the tag off, and
// only some drivers show it to the program.

const (
	// kfuncTag returns the tag (net/core/xdp.c).
	kfuncTag = "bpf_xdp_metadata_rx_vlan_tag"
	// kfuncPlaceholder stands for its number in the object (earlydrop.c has it too). No helper has such a high one.
	kfuncPlaceholder = 0x0ffffff0
	// pseudoKfuncCall is BPF_PSEUDO_KFUNC_CALL of include/uapi/linux/bpf.h.
	pseudoKfuncCall = asm.R2

	deviceBoundOnly = 1 << 6 // BPF_F_XDP_DEV_BOUND_ONLY
	hasFrags        = 1 << 5 // BPF_F_XDP_HAS_FRAGS
)

// callKfunc puts the number of the kernel's function in place of that in the object. The function is for programs of one interface only,
// and for those whose license is compatible with the GPL.
func callKfunc(program *ebpf.ProgramSpec, nic int) error {
	kernel, err := btf.LoadKernelSpec()
	if err != nil {
		return fmt.Errorf("read the kernel's types: %w", err)
	}
	var function *btf.Func
	if err := kernel.TypeByName(kfuncTag, &function); err != nil {
		return fmt.Errorf("look for %s: %w", kfuncTag, err)
	}
	id, err := kernel.TypeID(function)
	if err != nil {
		return fmt.Errorf("look for %s: %w", kfuncTag, err)
	}
	for i := range program.Instructions {
		if call := &program.Instructions[i]; call.IsBuiltinCall() && call.Constant == kfuncPlaceholder {
			call.Src, call.Constant = pseudoKfuncCall, int64(id)
		}
	}
	program.Type, program.License, program.Ifindex = ebpf.XDP, "GPL", uint32(nic)
	program.Flags = deviceBoundOnly
	return nil
}

// A tagging is what becomes of the tag of a frame before XDP.
type tagging int

const (
	tagsStay  tagging = iota // in the frame
	tagsShown                // by the driver
	tagsLost
)

// An xdpDevice is what decides about XDP on an interface.
type xdpDevice struct {
	name, kind string
	driverName string // as ethtool -i prints it; "": it has none
	driver     driverFeatures
	offloads   map[string]bool // by the names that ethtool -k prints
}

// staysUp reports whether the driver is known to keep the link while a program is attached or detached (veth_xdp_set of
// drivers/net/veth.c, virtnet_xdp_set of drivers/net/virtio_net.c). Others set up the hardware anew (ixgbe_xdp_setup, i40e_xdp_setup,
// igb_xdp_setup), for seconds, and the cluster's own messages may need that link.
func (d xdpDevice) staysUp() bool { return d.driverName == "veth" || d.driverName == "virtio_net" }

// tagging returns what becomes of the tags on an interface, and why they are lost, or why there is no XDP at all.
func (d xdpDevice) tagging() (tagging, string) {
	const customer, service = "rx-vlan-hw-parse", "rx-vlan-stag-hw-parse"
	switch {
	case slices.Contains([]string{"bridge", "bond", "team"}, d.kind): // a port that is added later might not have it
		return tagsLost, fmt.Sprintf("%s is a %s, and XDP is in the drivers of its ports", d.name, d.kind)
	case d.driver.known && d.driver.xdp&netdevXDPBasic == 0:
		return tagsLost, fmt.Sprintf("the driver of %s (%s) has no native XDP", d.name, d.kind)
	case d.driver.metadata&netdevMetadataVLANTag != 0:
		return tagsShown, ""
	case d.kind == "veth": // also what its peer has not put into the frame
		return tagsLost, d.name + " is a veth, which shows the VLAN tags of frames to XDP programs only from Linux 6.8 on"
	case d.offloads[customer] || d.offloads[service]:
		return tagsLost, fmt.Sprintf("%[1]s takes VLAN tags off frames, so that an XDP program could not tell the frames of other VLANs "+
			"(ethtool -K %[1]s rxvlan off rx-vlan-stag-hw-parse off)", d.name)
	default:
		return tagsStay, ""
	}
}

// taggingOf returns what becomes of the tags on an interface, and why they are lost, or why there is no XDP at all.
func (c *Conn) taggingOf(nic int) (tagging, string, error) {
	if c.tagsStay {
		return tagsStay, "", nil
	}
	device, err := c.xdpDevice(nic)
	if err != nil {
		return tagsLost, "", err
	}
	how, why := device.tagging()
	return how, why, nil
}

// xdpDevice asks the kernel what decides about XDP on an interface.
func (c *Conn) xdpDevice(nic int) (xdpDevice, error) {
	device, err := c.netlink.LinkByIndex(nic)
	if err != nil {
		return xdpDevice{}, fmt.Errorf("read interface %d: %w", nic, err)
	}
	d := xdpDevice{name: device.Attrs().Name, kind: device.Type()}
	if d.driver, err = featuresOf(nic); err != nil {
		return d, err
	}
	if c.asBefore68 {
		d.driver.metadata = 0
	}
	tool, err := ethtool.NewEthtool()
	if err != nil {
		return d, fmt.Errorf("read the features of %s: %w", d.name, err)
	}
	defer tool.Close()
	if d.offloads, err = tool.Features(d.name); err != nil {
		return d, fmt.Errorf("read the features of %s: %w", d.name, err)
	}
	d.driverName, err = tool.DriverName(d.name)
	if err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
		return d, fmt.Errorf("read the driver of %s: %w", d.name, err)
	}
	return d, nil
}

// Of include/uapi/linux/netdev.h.
const (
	netdevFamily              = "netdev"
	netdevCmdDevGet           = 1
	netdevDevIfindex          = 1
	netdevDevXDPFeatures      = 3
	netdevDevMetadataFeatures = 5
	netdevXDPBasic            = 1
	netdevMetadataVLANTag     = 4
)

// driverFeatures are what a driver has for XDP programs.
type driverFeatures struct {
	known         bool // the kernel can be asked (Linux 6.3)
	xdp, metadata uint64
}

// featuresOf asks the kernel.
func featuresOf(nic int) (driverFeatures, error) {
	var found driverFeatures
	family, err := netlink.GenlFamilyGet(netdevFamily)
	if errors.Is(err, unix.ENOENT) {
		return found, nil
	}
	if err != nil {
		return found, fmt.Errorf("look for the netlink family %s: %w", netdevFamily, err)
	}
	encoder := mdlayher.NewAttributeEncoder()
	encoder.Uint32(netdevDevIfindex, uint32(nic))
	attributes, err := encoder.Encode()
	if err != nil {
		return found, err
	}
	conn, err := mdlayher.Dial(unix.NETLINK_GENERIC, nil)
	if err != nil {
		return found, fmt.Errorf("connect to generic netlink: %w", err)
	}
	defer func() { _ = conn.Close() }()
	const genericHeader = 4 // bytes: command, version, and two that are reserved
	answers, err := conn.Execute(mdlayher.Message{
		Header: mdlayher.Header{Type: mdlayher.HeaderType(family.ID), Flags: mdlayher.Request},
		Data:   append([]byte{netdevCmdDevGet, 1, 0, 0}, attributes...),
	})
	if err != nil {
		return found, fmt.Errorf("ask what the driver of interface %d has for XDP programs: %w", nic, err)
	}
	for _, answer := range answers {
		decoder, err := mdlayher.NewAttributeDecoder(answer.Data[min(genericHeader, len(answer.Data)):])
		if err != nil {
			return found, fmt.Errorf("decode what the driver of interface %d has for XDP programs: %w", nic, err)
		}
		for decoder.Next() {
			switch decoder.Type() {
			case netdevDevXDPFeatures:
				found.known, found.xdp = true, decoder.Uint64()
			case netdevDevMetadataFeatures:
				found.metadata = decoder.Uint64()
			}
		}
	}
	return found, nil
}
