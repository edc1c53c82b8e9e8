// Package operator makes the output of status, whois and metrics. It reads a node and its cluster and changes nothing. Its input and output
// are values, so that commands and tests use them alike.
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
	"ocf-clusterip/internal/text"
)

// Client is a client of a shared address.
type Client struct {
	Address netip.Addr
	Port    uint16 // 0: not given
}

// ParseClient reads ADDRESS, IPV4:PORT or [IPV6]:PORT.
func ParseClient(text string) (Client, error) {
	if address, err := netip.ParseAddr(text); err == nil && address.Zone() == "" {
		return Client{Address: address.Unmap()}, nil
	}
	if both, err := netip.ParseAddrPort(text); err == nil && both.Addr().Zone() == "" && both.Port() != 0 {
		return Client{Address: both.Addr().Unmap(), Port: both.Port()}, nil
	}
	return Client{}, ocf.Errorf(ocf.ErrArgs, "client %s is not an address such as 192.0.2.7, 192.0.2.7:5000, 2001:db8::7 or "+
		"[2001:db8::7]:5000",
		ocf.Quote(text))
}

// ReadClients reads one client from each line. It skips empty lines and those that begin with #.
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

// Target is the destination of clients' packets.
type Target struct {
	Address  netip.Addr
	Port     uint16 // 0: not said
	Protocol string // as in services.Service
}

// Known is what is known about a resource: its layout, its tables on this node, and the placement of its buckets according to Pacemaker.
type Known struct {
	Layout    clusterip.Layout
	Here      clusterip.Tables
	Early     clusterip.EarlyDropState // on this node
	Node      string                   // this node; "" if its name is not known
	Placement map[clusterip.Bucket][]string
	Drainers  map[clusterip.Bucket][]handover.Drainer  // other nodes that drain
	Lingerers map[clusterip.Bucket][]handover.Lingerer // other nodes that announce that they linger
}

// Answer is the node that answers a client.
type Answer struct {
	Client string   `json:"client"`
	Port   uint16   `json:"port,omitempty"`
	Bucket uint32   `json:"bucket"`
	Nodes  []string `json:"nodes"` // the owners, or who lingers; more than one is a fault; none: unowned or unknown
	State  string   `json:"state"` // of the bucket, see the constants
	Here   string   `json:"here"`  // what this node does with the client's packets, see packetsHere; "" if nothing is installed here
}

// The states of a bucket.
const (
	Owned         = "owned"          // one node answers
	Adopting      = "adopting"       // the same, while old owners may serve their connections
	Lingering     = "lingering"      // no node owns the bucket, but an old owner answers everything until it is taken over
	Draining      = "draining"       // no node owns the bucket, but old owners serve their connections
	Unowned       = "unowned"        // no node answers
	Unknown       = "unknown"        // Pacemaker does not answer, and this node neither owns the bucket nor lingers with it
	SeveralOwners = "several-owners" // several nodes answer
)

// Whois returns the node that answers a client. Without an address the target is the first one of the client's IP version.
func Whois(known Known, client Client, target Target) (Answer, error) {
	layout := known.Layout
	if !target.Address.IsValid() {
		target.Address = layout.Address()
		if i := slices.IndexFunc(layout.Addresses(), func(a netip.Addr) bool { return a.Is4() == client.Address.Is4() }); i >= 0 {
			target.Address = layout.Addresses()[i]
		}
	}
	if !slices.Contains(layout.Addresses(), target.Address) {
		return Answer{}, ocf.Errorf(ocf.ErrArgs, "%s is not an address of the resource (%s)", target.Address, text.Join(layout.Addresses(), ", "))
	}
	if client.Address.Is4() != target.Address.Is4() {
		return Answer{}, ocf.Errorf(ocf.ErrArgs, "client %s and address %s have different IP versions", client.Address, target.Address)
	}
	ports := layout.HashMode.PortWords()
	switch {
	case target.Protocol == services.ICMP.Protocol:
		client.Port, target.Port = 0, 0
	case ports > 0 && client.Port == 0:
		return Answer{}, ocf.Errorf(ocf.ErrArgs, "with hashmode=%s the node depends on the client's port; give "+
			"%s:PORT", layout.HashMode, client.Address)
	case target.Port == 0 && (ports > 1 || len(layout.Services) > 0):
		return Answer{}, ocf.Errorf(ocf.ErrArgs, "the node depends on the service's port; give for instance --to "+
			"%s", netip.AddrPortFrom(target.Address, 80))
	}
	bucket := layout.BucketOf(clusterip.Packet{
		Flow:     clusterip.Flow{Source: client.Address, SourcePort: client.Port, DestinationPort: target.Port},
		Protocol: target.Protocol,
	})
	answer := Answer{Client: client.Address.String(), Port: client.Port, Bucket: uint32(bucket)}
	answer.Nodes, answer.State = known.owner(bucket)
	if answer.State == Lingering {
		for _, l := range known.lingerers(bucket) {
			answer.Nodes = append(answer.Nodes, l.Node)
		}
	}
	answer.Here = known.packetsHere(bucket)
	if answer.Nodes == nil {
		answer.Nodes = []string{} // [] in JSON, not null
	}
	return answer, nil
}

// WhoAre is Whois for several clients. It returns all errors at once.
func WhoAre(known Known, clients []Client, target Target) ([]Answer, error) {
	answers := make([]Answer, len(clients))
	faults := make([]error, len(clients))
	for i, client := range clients {
		answers[i], faults[i] = Whois(known, client, target)
	}
	return answers, errors.Join(faults...)
}

// BucketsOf returns the buckets of answers, each once.
func BucketsOf(answers []Answer) []clusterip.Bucket {
	var buckets []clusterip.Bucket
	for _, a := range answers {
		buckets = append(buckets, clusterip.Bucket(a.Bucket))
	}
	slices.Sort(buckets)
	return slices.Compact(buckets)
}

// here returns the name of this node.
func (k Known) here() string { return nameOf(k.Node) }

func nameOf(thisNode string) string { return cmp.Or(thisNode, "this node") }

// packetsHere returns what this node does with the packets of a bucket, and if it drops them, where.
func (k Known) packetsHere(bucket clusterip.Bucket) string {
	switch {
	case slices.Contains(k.Here.Owned, bucket):
		return "answers"
	case len(k.lingersHere(bucket)) > 0:
		return "lingers"
	case k.Here.Moves.Drains(bucket):
		return "drains"
	case k.Early.Judges() && !slices.Contains(k.Early.Passed, bucket):
		return fmt.Sprintf("drops (%s)", k.Early.Attached)
	case k.Here.Present:
		return fmt.Sprintf("drops (%s)", cmp.Or(k.Here.Backend, clusterip.NFTables))
	default:
		return ""
	}
}

// lingersHere returns this node, if it lingers with the bucket.
func (k Known) lingersHere(bucket clusterip.Bucket) []handover.Lingerer {
	l, lingers := k.Here.Lingers(bucket)
	if !lingers {
		return nil
	}
	return []handover.Lingerer{{Node: k.here(), Lingering: handover.Lingering{For: l.Left}}}
}

// lingerers returns the nodes that linger with a bucket which no node owns. If this node does, no other does any more, whatever it
// announces: before this node owned the bucket, it took the bucket over.
func (k Known) lingerers(bucket clusterip.Bucket) []handover.Lingerer {
	if here := k.lingersHere(bucket); len(here) > 0 {
		return here
	}
	return k.Lingerers[bucket]
}

// owner returns the owners of a bucket. For this node its kernel is authoritative, not Pacemaker.
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
		return nodes, SeveralOwners
	// For this node its tables are authoritative: it may have ended an adoption before the announcement of the drain is cleared.
	case owned && slices.ContainsFunc(k.Here.Moves.Adopting, adopts), !owned && len(nodes) == 1 && draining:
		return nodes, Adopting
	case len(nodes) == 1:
		return nodes, Owned
	case len(k.lingerers(bucket)) > 0: // also if Pacemaker does not answer: what is owned elsewhere lingers here no more
		return nil, Lingering
	case draining && k.Placement != nil:
		return nil, Draining
	case k.Placement != nil:
		return nil, Unowned
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
	known := slices.ContainsFunc(answers, func(a Answer) bool { return a.Here != "" })
	row := func(client string, bucket any, nodes, state, here string) {
		cells := []string{client, fmt.Sprint(bucket), nodes, state}
		if known {
			cells = append(cells, here)
		}
		_, _ = fmt.Fprintln(table, strings.Join(cells, "\t")) // Flush returns the error
	}
	row("CLIENT", "BUCKET", "NODE", "STATE", "THIS NODE")
	for _, a := range answers {
		client, nodes := a.Client, strings.Join(a.Nodes, ",")
		if a.Port != 0 {
			client = netip.AddrPortFrom(netip.MustParseAddr(a.Client), a.Port).String()
		}
		if nodes == "" {
			nodes = "-"
		}
		row(client, a.Bucket, nodes, a.State, cmp.Or(a.Here, "-"))
	}
	return table.Flush()
}
