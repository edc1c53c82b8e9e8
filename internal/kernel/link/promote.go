package link

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	mdlayher "github.com/mdlayher/netlink"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"ocf-clusterip/internal/clusterip"
)

// hasSecondaries reports whether an address is primary and has secondary ones: those of the same network with the same mask, added later
// (__inet_insert_ifa in net/ipv4/devinet.c).
func hasSecondaries(address netlink.Addr, all []netlink.Addr) bool {
	prefix, ok := prefixOf(address.IPNet)
	if !ok || address.Flags&unix.IFA_F_SECONDARY != 0 {
		return false
	}
	return slices.ContainsFunc(all, func(other netlink.Addr) bool {
		theirs, ok := prefixOf(other.IPNet)
		return ok && other.Flags&unix.IFA_F_SECONDARY != 0 && theirs.Masked() == prefix.Masked()
	})
}

// removePromoting removes a primary address, and lets the kernel promote its first secondary one, as it does where the interface's
// parameter promote_secondaries is set. Otherwise the kernel would remove them all, and with the last one the interface's routes
// (__inet_del_ifa in net/ipv4/devinet.c).
//
// Where the parameter is not set, one message sets it, removes the address, and unsets it. The kernel processes the message whole, so
// that no kill can leave the parameter set, and a read-only /proc/sys does not matter.
func (c *Conn) removePromoting(ctx context.Context, nic clusterip.NIC, prefix netip.Prefix) (err error) {
	file, err := os.Open(filepath.Join("/proc/sys/net/ipv4/conf", nic.Name, "promote_secondaries"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	// One process at a time, or one would unset the parameter before the other's address is removed. The lock ends with the file descriptor.
	if err := flock(ctx, file); err != nil {
		return fmt.Errorf("lock %s: %w", file.Name(), err)
	}
	value, err := io.ReadAll(file)
	if err != nil {
		return err
	}
	if !bytes.Equal(bytes.TrimSpace(value), []byte("0")) {
		return c.removeAlone(nic, prefix)
	}
	kernel, err := mdlayher.Dial(unix.NETLINK_ROUTE, nil)
	if err != nil {
		return fmt.Errorf("connect to rtnetlink: %w", err)
	}
	defer func() { err = errors.Join(err, kernel.Close()) }()
	deadline, _ := ctx.Deadline() // the zero time without one
	if err := kernel.SetDeadline(deadline); err != nil {
		return err
	}
	// The kernel continues after a part that it refuses. So the parameter is first set to the value that it has, to see whether that is
	// allowed.
	if err := send(kernel, setPromotion(nic, 0)); err != nil {
		return fmt.Errorf("without net.ipv4.conf.%s.promote_secondaries=1 the kernel would remove further addresses of %s together with %s, "+
			"and the parameter cannot be set: %w; set it to 1", nic.Name, nic.Name, prefix, err)
	}
	return unless(unix.EADDRNOTAVAIL, send(kernel, setPromotion(nic, 1), removal(nic, prefix), setPromotion(nic, 0)))
}

// send sends messages as one, and waits until the kernel has acknowledged each.
func send(kernel *mdlayher.Conn, messages ...mdlayher.Message) error {
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
	ip := prefix.Addr().AsSlice()
	return request(unix.RTM_DELADDR, address, nl.NewRtAttr(unix.IFA_LOCAL, ip), nl.NewRtAttr(unix.IFA_ADDRESS, ip))
}

func request(kind mdlayher.HeaderType, parts ...nl.NetlinkRequestData) mdlayher.Message {
	message := mdlayher.Message{Header: mdlayher.Header{Type: kind, Flags: mdlayher.Request | mdlayher.Acknowledge}}
	for _, part := range parts {
		message.Data = append(message.Data, part.Serialize()...) //nolint:misspell // the library's name
	}
	return message
}

// flock locks a file. Any local user can hold the lock, and none may make a stop fail. So after a while it returns without the lock, which
// only keeps two stops on one interface apart.
func flock(ctx context.Context, file *os.File) error {
	const patience, pause = 2 * time.Second, 2 * time.Millisecond
	waiting, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.EWOULDBLOCK) {
			return err
		}
		if clusterip.Pause(waiting, pause) != nil {
			return ctx.Err()
		}
	}
}
