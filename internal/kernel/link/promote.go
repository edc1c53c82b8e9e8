package link

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"

	mdlayher "github.com/mdlayher/netlink"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"ocf-clusterip/internal/clusterip"
)

// ipv4Conf holds the kernel's IPv4 parameters of each NIC, of the reader's network namespace.
const ipv4Conf = "/proc/sys/net/ipv4/conf"

// hasSecondaries tells whether others hang on an address: those of the same network with the same mask, added later
// (__inet_insert_ifa in net/ipv4/devinet.c).
func hasSecondaries(ours netlink.Addr, all []netlink.Addr) bool {
	prefix, ok := prefixOf(ours.IPNet)
	if !ok || ours.Flags&unix.IFA_F_SECONDARY != 0 {
		return false
	}
	for _, other := range all {
		if theirs, ok := prefixOf(other.IPNet); ok && other.Flags&unix.IFA_F_SECONDARY != 0 && theirs.Masked() == prefix.Masked() {
			return true
		}
	}
	return false
}

// removePromoting removes a primary address, and has the kernel make the first that hangs on it primary, as it does where the NIC's parameter
// promote_secondaries is set; otherwise it would remove them all, and with the last one the NIC's routes (__inet_del_ifa in net/ipv4/devinet.c).
//
// Where it is not set, one message to the kernel says three things: set it, remove the address, unset it. The kernel works it off whatever becomes of
// the sender, so that no kill can leave it set, and needs no /proc/sys that may be written to.
func (c *Conn) removePromoting(ctx context.Context, nic clusterip.NIC, prefix netip.Prefix) (err error) {
	file, err := os.Open(filepath.Join(ipv4Conf, nic.Name, "promote_secondaries"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	// One at a time, or one would unset it before the other's address is gone. The lock goes with the file descriptor.
	if err := flock(file); err != nil {
		return fmt.Errorf("lock %s: %w", file.Name(), err)
	}
	var value [16]byte
	n, err := file.Read(value[:])
	if err != nil {
		return err
	}
	if !bytes.Equal(bytes.TrimSpace(value[:n]), []byte("0")) {
		return c.removeAlone(nic, prefix)
	}
	kernel, err := mdlayher.Dial(unix.NETLINK_ROUTE, nil)
	if err != nil {
		return fmt.Errorf("connect to rtnetlink: %w", err)
	}
	defer func() { err = errors.Join(err, kernel.Close()) }()
	if deadline, ok := ctx.Deadline(); ok {
		if err := kernel.SetDeadline(deadline); err != nil {
			return err
		}
	}
	// The kernel goes on behind a message that it refuses. So it is asked first whether it takes such a one: with the value that there is.
	if err := tell(kernel, setPromotion(nic, 0)); err != nil {
		return fmt.Errorf("the kernel keeps the addresses of %s that were added after %s only while net.ipv4.conf.%s.promote_secondaries is 1, and does not let it be set: %w; set it to 1",
			nic.Name, prefix, nic.Name, err)
	}
	return unless(unix.EADDRNOTAVAIL, tell(kernel, setPromotion(nic, 1), removal(nic, prefix), setPromotion(nic, 0)))
}

// tell sends messages as one, and waits until the kernel has acknowledged each.
func tell(kernel *mdlayher.Conn, messages ...mdlayher.Message) error {
	if _, err := kernel.SendMessages(messages); err != nil {
		return err
	}
	var errs []error
	for range messages {
		_, err := kernel.Receive()
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// setPromotion is the message that sets a NIC's parameter promote_secondaries (inet_set_link_af in net/ipv4/devinet.c).
func setPromotion(nic clusterip.NIC, value uint32) mdlayher.Message {
	const promoteSecondaries = 20 // IPV4_DEVCONF_PROMOTE_SECONDARIES in include/uapi/linux/ip.h
	link := nl.NewIfInfomsg(unix.AF_UNSPEC)
	link.Index = int32(nic.Index)
	families := nl.NewRtAttr(unix.IFLA_AF_SPEC, nil)
	families.AddRtAttr(unix.AF_INET, nil).AddRtAttr(unix.IFLA_INET_CONF, nil).AddRtAttr(promoteSecondaries, nl.Uint32Attr(value))
	return request(unix.RTM_SETLINK, link, families)
}

// removal is the message that removes an IPv4 address from a NIC.
func removal(nic clusterip.NIC, prefix netip.Prefix) mdlayher.Message {
	address := nl.NewIfAddrmsg(unix.AF_INET)
	address.Prefixlen = uint8(prefix.Bits())
	address.Index = uint32(nic.Index)
	return request(unix.RTM_DELADDR, address, nl.NewRtAttr(unix.IFA_LOCAL, prefix.Addr().AsSlice()), nl.NewRtAttr(unix.IFA_ADDRESS, prefix.Addr().AsSlice()))
}

func request(kind mdlayher.HeaderType, parts ...nl.NetlinkRequestData) mdlayher.Message {
	message := mdlayher.Message{Header: mdlayher.Header{Type: kind, Flags: mdlayher.Request | mdlayher.Acknowledge}}
	for _, part := range parts {
		message.Data = append(message.Data, part.Serialize()...) //nolint:misspell // the library's name
	}
	return message
}

func flock(file *os.File) error {
	for {
		if err := unix.Flock(int(file.Fd()), unix.LOCK_EX); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
