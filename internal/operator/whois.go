// Package operator answers what an operator asks of a node and its cluster. It reads, and changes nothing; what it is told and what it says
// are values, so that commands, tests and other programs can use them alike.
package operator

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"text/tabwriter"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/handover"
	"ocf-clusterip/internal/ocf"
	"ocf-clusterip/internal/services"
)

// Client is who asks for the address.
type Client struct {
	Address netip.Addr
	Port    uint16 // 0: not said
}

// ParseClient reads ADDRESS, IPV4:PORT or [IPV6]:PORT.
func ParseClient(text string) (Client, error) {
	if address, err := netip.ParseAddr(text); err == nil && address.Zone() == "" {
		return Client{Address: address.Unmap()}, nil
	}
	if both, err := netip.ParseAddrPort(text); err == nil && both.Addr().Zone() == "" && both.Port() != 0 {
		return Client{Address: both.Addr().Unmap(), Port: both.Port()}, nil
	}
	return Client{}, ocf.Errorf(ocf.ErrArgs, "client %s is no address such as 192.0.2.7, 192.0.2.7:5000, 2001:db8::7 or [2001:db8::7]:5000", ocf.Quote(text))
}

// ReadClients reads one client for each line. Empty lines and those that begin with # are passed over.
func ReadClients(from io.Reader, name string) ([]Client, error) {
	var clients []Client
	lines := bufio.NewScanner(from)
	for number := 1; lines.Scan(); number++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		client, err := ParseClient(line)
		if err != nil {
			return nil, fmt.Errorf("%s, line %d: %w", name, number, err)
		}
		clients = append(clients, client)
	}
	if err := lines.Err(); err != nil {
		return nil, ocf.Errorf(ocf.ErrArgs, "%s: %w", name, err)
	}
	return clients, nil
}

// Target is what clients ask for.
type Target struct {
	Address  netip.Addr
	Port     uint16 // 0: not said
	Protocol string // as in services.Service
}

// Known is what is known of a resource: how it is laid, what this node sees of it, and where the cluster manager says that buckets are.
type Known struct {
	Layout    clusterip.Layout
	Here      clusterip.Tables
	Node      string // this node; "" if its name is not known
	Placement map[clusterip.Bucket][]string
	Drainers  map[clusterip.Bucket][]handover.Drainer // other nodes that serve connections still
}

// An Answer says who answers a client.
type Answer struct {
	Client string   `json:"client"`
	Port   uint16   `json:"port,omitempty"`
	Bucket uint32   `json:"bucket"`
	Nodes  []string `json:"nodes"` // more than one is a fault; none: not known, or nobody
	State  string   `json:"state"` // of the bucket, see the constants
}

// The states of a bucket.
const (
	Owned    = "owned"    // a node answers
	Adopting = "adopting" // the same; but connections to the former owner may go on
	Draining = "draining" // nobody owns the bucket, but a node serves its connections still
	Nobody   = "nobody"   // the cluster manager says that no node answers
	Unknown  = "unknown"  // nobody is there to ask
	Doubled  = "doubled"  // several nodes answer
)

// Whois tells who answers a client. Without an address that is asked for, it is the first of the client's version.
func Whois(known Known, client Client, target Target) (Answer, error) {
	layout := known.Layout
	if !target.Address.IsValid() {
		target.Address = layout.Address()
		if i := slices.IndexFunc(layout.Addresses(), func(a netip.Addr) bool { return a.Is4() == client.Address.Is4() }); i >= 0 {
			target.Address = layout.Addresses()[i]
		}
	}
	if !slices.Contains(layout.Addresses(), target.Address) {
		return Answer{}, ocf.Errorf(ocf.ErrArgs, "%s is none of the resource's addresses (%v)", target.Address, layout.Addresses())
	}
	if client.Address.Is4() != target.Address.Is4() {
		return Answer{}, ocf.Errorf(ocf.ErrArgs, "client %s and %s are not of one IP version", client.Address, target.Address)
	}
	ports := layout.HashMode.PortWords()
	switch {
	case target.Protocol == services.ICMP.Protocol:
		client.Port, target.Port = 0, 0
	case ports > 0 && client.Port == 0:
		return Answer{}, ocf.Errorf(ocf.ErrArgs, "hashmode=%s: which node answers depends on the client's port; say %s:PORT", layout.HashMode, client.Address)
	case target.Port == 0 && (ports > 1 || len(layout.Services) > 0):
		return Answer{}, ocf.Errorf(ocf.ErrArgs, "which node answers depends on the service's port; say --to %s", netip.AddrPortFrom(target.Address, 80))
	}
	bucket := layout.Owner(clusterip.Packet{
		Flow:     clusterip.Flow{Source: client.Address, SourcePort: client.Port, DestinationPort: target.Port},
		Protocol: target.Protocol,
	})
	answer := Answer{Client: client.Address.String(), Port: client.Port, Bucket: uint32(bucket)}
	answer.Nodes, answer.State = known.owner(bucket)
	if answer.Nodes == nil {
		answer.Nodes = []string{} // in JSON too
	}
	return answer, nil
}

// WhoAre tells it of several clients. All faults are reported at once.
func WhoAre(known Known, clients []Client, target Target) ([]Answer, error) {
	answers := make([]Answer, len(clients))
	faults := make([]error, len(clients))
	for i, client := range clients {
		answers[i], faults[i] = Whois(known, client, target)
	}
	return answers, errors.Join(faults...)
}

// BucketsOf are the buckets that answers are about, each once.
func BucketsOf(answers []Answer) []clusterip.Bucket {
	var buckets []clusterip.Bucket
	for _, a := range answers {
		buckets = append(buckets, clusterip.Bucket(a.Bucket))
	}
	slices.Sort(buckets)
	return slices.Compact(buckets)
}

// here is what this node is called.
func (k Known) here() string { return nameOf(k.Node) }

func nameOf(thisNode string) string { return cmp.Or(thisNode, "this node") }

// owner tells which nodes answer for a bucket. Of itself a node's kernel knows better than the cluster manager.
func (k Known) owner(bucket clusterip.Bucket) (nodes []string, state string) {
	here := k.here()
	nodes = slices.DeleteFunc(slices.Clone(k.Placement[bucket]), func(node string) bool { return node == here })
	owned := slices.Contains(k.Here.Owned, bucket)
	if owned {
		nodes = append(nodes, here)
		slices.Sort(nodes)
	}
	adopts := func(a clusterip.Adoption) bool { return a.Bucket == bucket }
	drains := func(d clusterip.Drain) bool { return d.Bucket == bucket }
	draining := len(k.Drainers[bucket]) > 0 || slices.ContainsFunc(k.Here.Moves.Draining, drains)
	switch {
	case len(nodes) > 1:
		return nodes, Doubled
	// Of itself a node knows best, which may have ended an adoption before it is said that the drain is over.
	case owned && slices.ContainsFunc(k.Here.Moves.Adopting, adopts), !owned && len(nodes) == 1 && draining:
		return nodes, Adopting
	case len(nodes) == 1:
		return nodes, Owned
	case draining && k.Placement != nil:
		return nil, Draining
	case k.Placement != nil:
		return nil, Nobody
	default:
		return nil, Unknown
	}
}

// WriteAnswers writes a line for each answer, or a JSON list.
func WriteAnswers(to io.Writer, answers []Answer, asJSON bool) error {
	if asJSON {
		return WriteJSON(to, answers)
	}
	const gap = 2
	table := tabwriter.NewWriter(to, 0, 0, gap, ' ', 0)
	_, _ = fmt.Fprintln(table, // an error stays with the table until Flush
		"CLIENT\tBUCKET\tNODE\tSTATE")
	for _, a := range answers {
		client, nodes := a.Client, strings.Join(a.Nodes, ",")
		if a.Port != 0 {
			client = netip.AddrPortFrom(netip.MustParseAddr(a.Client), a.Port).String()
		}
		if nodes == "" {
			nodes = "-"
		}
		_, _ = fmt.Fprintf(table, "%s\t%d\t%s\t%s\n", client, a.Bucket, nodes, a.State)
	}
	return table.Flush()
}
