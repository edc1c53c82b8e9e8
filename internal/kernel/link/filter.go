package link

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/ocf"
)

// devMcast lists the multicast filters of all interfaces with their users. Netlink lists the filters without the users.
const devMcast = "/proc/thread-self/net/dev_mcast"

func readMulticastFilters(state *clusterip.State, macs []clusterip.MAC) error {
	text, err := os.ReadFile(devMcast)
	if err != nil {
		return fmt.Errorf("read multicast filters: %w", err)
	}
	filters, err := parseDevMcast(text)
	if err != nil {
		return fmt.Errorf("read multicast filters from %s: %w", devMcast, err)
	}
	for _, filter := range filters {
		if slices.Contains(macs, filter.MAC) {
			state.Filters = append(state.Filters, filter)
		}
	}
	return nil
}

// parseDevMcast reads what dev_mc_seq_show of net/core/net-procfs.c writes: index, name, users, global users, address.
// A global user comes from SIOCADDMULTI, called by this agent or by `ip maddr add`.
func parseDevMcast(text []byte) ([]clusterip.Filter, error) {
	var filters []clusterip.Filter
	for line := range strings.Lines(string(text)) {
		var index, users, global int
		var name, address string
		_, scanErr := fmt.Sscan(line, &index, &name, &users, &global, &address)
		mac, macErr := hex.DecodeString(address)
		if err := errors.Join(scanErr, macErr); err != nil {
			return nil, fmt.Errorf("line %q is not index, name, users, global users, address: %w", line, err)
		}
		filter := clusterip.Filter{NICIndex: index, MAC: clusterip.MACOf(mac), Static: global > 0}
		if !filter.MAC.IsZero() { // InfiniBand's addresses are longer
			filters = append(filters, filter)
		}
	}
	return filters, nil
}

// readUnicastFilters reads the further unicast addresses of the interfaces.
func (c *Conn) readUnicastFilters(ctx context.Context, state *clusterip.State, macs []clusterip.MAC) error {
	entries, err := dump(ctx, func() ([]netlink.Neigh, error) {
		return c.netlink.NeighListExecute(netlink.Ndmsg{Family: unix.AF_BRIDGE})
	})
	if err != nil {
		return fmt.Errorf("read unicast filters: %w", err)
	}
	for _, entry := range entries {
		filter, ok := unicastFilter(entry)
		if ok && slices.Contains(macs, filter.MAC) && !slices.Contains(state.Filters, filter) {
			state.Filters = append(state.Filters, filter)
		}
	}
	return nil
}

// unicastFilter reads an entry of the forwarding databases. A bridge lists its own addresses as those of a master (fdb_fill_info in
// net/bridge/br_fdb.c).
func unicastFilter(entry netlink.Neigh) (filter clusterip.Filter, ok bool) {
	filter = clusterip.Filter{NICIndex: entry.LinkIndex, MAC: clusterip.MACOf(entry.HardwareAddr), Static: true}
	isOwn := entry.Flags&netlink.NTF_SELF != 0 || entry.MasterIndex == entry.LinkIndex
	return filter, isOwn && !filter.MAC.Group()
}

func (c *Conn) addFilter(nic clusterip.NIC, mac clusterip.MAC) error {
	if mac.Group() {
		return ioctlMulticast(unix.SIOCADDMULTI, nic, mac)
	}
	err := unless(unix.EEXIST, c.netlink.NeighAppend(fdbEntry(nic, mac)))
	if errors.Is(err, unix.EOPNOTSUPP) {
		return ocf.Errorf(ocf.ErrArgs, "%s takes no second unicast MAC (%w): choose another nic, or mac_mode=multicast", nic.Name, err)
	}
	return err
}

func (c *Conn) removeFilter(nic clusterip.NIC, mac clusterip.MAC) error {
	if mac.Group() {
		return unless(unix.ENOENT, ioctlMulticast(unix.SIOCDELMULTI, nic, mac))
	}
	return unless(unix.ENOENT, c.netlink.NeighDel(fdbEntry(nic, mac)))
}

// fdbEntry is what `bridge fdb add MAC dev NIC self permanent` sends.
func fdbEntry(nic clusterip.NIC, mac clusterip.MAC) *netlink.Neigh {
	return &netlink.Neigh{
		LinkIndex: nic.Index, Family: unix.AF_BRIDGE, Flags: netlink.NTF_SELF, State: netlink.NUD_PERMANENT,
		HardwareAddr: net.HardwareAddr(mac[:]),
	}
}

// ifreqHardware is struct ifreq with ifr_hwaddr (include/uapi/linux/if.h), which x/sys/unix does not offer.
type ifreqHardware struct {
	name   [unix.IFNAMSIZ]byte
	family uint16 // must be AF_UNSPEC (dev_ifsioc in net/core/dev_ioctl.c)
	mac    [14]byte
	_      [8]byte // the rest of the union
}

// ioctlMulticast adds or removes a static multicast filter, as `ip maddr` does. Netlink has no message for it.
// Adding twice and removing once leaves none (dev_mc_add_global in net/core/dev_addr_lists.c).
func ioctlMulticast(request uintptr, nic clusterip.NIC, mac clusterip.MAC) error {
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open a socket for ioctl: %w", err)
	}
	defer unix.Close(socket) //nolint:errcheck // nothing was written
	var ifreq ifreqHardware
	copy(ifreq.name[:unix.IFNAMSIZ-1], nic.Name)
	copy(ifreq.mac[:], mac[:])
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(socket), request,
		uintptr(unsafe.Pointer(&ifreq))) //nolint:gosec // the kernel's interface
	if errno != 0 {
		return fmt.Errorf("multicast filter: %w", errno)
	}
	return nil
}
