package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"ocf-clusterip/tests/netns"
)

// sources are all the addresses that the client asks from.
func sources() []netip.Addr {
	var list []netip.Addr
	for a := clients.Addr(); clients.Contains(a); a = a.Next() {
		list = append(list, a)
	}
	return list
}

// ask sends an echo request, a datagram and a connection from each address, shows who answered, and checks that it was
// the bucket's owner, exactly once; and nobody where nobody owns the bucket.
func (d *demo) ask(ctx context.Context) (*tally, error) {
	// Once more, for the kernel drops a packet when the ARP request for its next hop gets lost.
	r, err := d.network.Probe(ctx, netns.Traffic{Target: address, Sources: sources(), Retries: 1})
	if err != nil {
		return nil, err
	}
	d.picture(r)
	t := count(r)
	t.fault = d.placement.check(r)
	return t, nil
}

// check compares the answers with what the hash and the placement demand.
func (p placement) check(r *netns.Report) error {
	owner := func(f netns.Flow) int { return p[bucketOf(f.Src)] }
	var served netns.Report
	var faults []error
	for _, e := range r.Exchanges {
		switch {
		case owner(e.Flow) != nobody:
			served.Exchanges = append(served.Exchanges, e)
		case len(e.Answers) > 0:
			faults = append(faults, fmt.Errorf("%s: answered, though nobody has bucket %d", e.Flow, bucketOf(e.Flow.Src)))
		}
	}
	return errors.Join(append(faults, served.ExactlyOnce(owner))...)
}

// A tally counts questions by what became of them.
type tally struct {
	asked      int
	by         [len(nodes)]int
	unanswered int
	twice      int // answered more than once, by whomever
	again      int // answered, but not at the first attempt
	fault      error
}

// String says how many were asked.
func (t *tally) String() string {
	if t.again > 0 {
		return fmt.Sprintf("%d questions (%d of them asked again)", t.asked, t.again)
	}
	return fmt.Sprintf("%d questions", t.asked)
}

func count(r *netns.Report) *tally {
	t := &tally{asked: len(r.Exchanges)}
	for _, e := range r.Exchanges {
		who := answerers(e)
		for _, node := range who {
			if node != netns.Stranger {
				t.by[node]++
			}
		}
		switch {
		case len(who) == 0:
			t.unanswered++
		case e.Sent > 1:
			t.again++
		}
		if answeredTwice(e) {
			t.twice++
		}
	}
	return t
}

// answerers lists the nodes that answered.
func answerers(e netns.Exchange) []int {
	var who []int
	for _, a := range e.Answers {
		if !slices.Contains(who, a.Node) {
			who = append(who, a.Node)
		}
	}
	return who
}

// answeredTwice tells whether several nodes answered, or one node a packet more than once. What follows the opening of
// a connection is not counted.
func answeredTwice(e netns.Exchange) bool {
	answers := map[uint32]int{}
	for _, a := range e.Answers {
		if a.Kind != netns.Data {
			answers[a.Seq]++
		}
		if answers[a.Seq] > 1 {
			return true
		}
	}
	return len(answerers(e)) > 1
}

const columns = 16 // of the picture

// picture shows for each client its bucket and who answered, and beside that the totals.
func (d *demo) picture(r *netns.Report) {
	who := map[netip.Addr][]netns.Exchange{}
	for _, e := range r.Exchanges {
		who[e.Flow.Src] = append(who[e.Flow.Src], e)
	}
	beside := d.totals(count(r))
	for i, row := range slices.Collect(slices.Chunk(sources(), columns)) {
		var cells strings.Builder
		for _, client := range row {
			cells.WriteString(d.cell(client, who[client]))
		}
		d.line("     %4s  %s   %s", fmt.Sprintf(".%d", row[0].As4()[3]), cells.String(), beside[i])
	}
}

// cell is a client's bucket and the letter of the node that answered all its questions; a dot if nobody answered, and a
// question mark if there is more to say.
func (d *demo) cell(client netip.Addr, exchanges []netns.Exchange) string {
	letter, colour := "?", alarm
	who := answerers(exchanges[0])
	same := !slices.ContainsFunc(exchanges, func(e netns.Exchange) bool {
		return answeredTwice(e) || !slices.Equal(answerers(e), who)
	})
	switch {
	case same && len(who) == 0:
		letter = "."
	case same && len(who) == 1 && who[0] != netns.Stranger:
		letter, colour = nodes[who[0]].letter, nodes[who[0]].colour
	}
	return d.paint(colour, fmt.Sprintf("%d%s", bucketOf(client), letter)) + " "
}

// totals are the lines beside the picture's rows.
func (d *demo) totals(t *tally) []string {
	var list []string
	for i, n := range nodes {
		list = append(list, fmt.Sprintf("%s %s answered %3d", d.paint(n.colour, " "+n.letter+" "), n.name, t.by[i]))
	}
	attribute := dim
	if t.unanswered+t.twice > 0 {
		attribute = red
	}
	return append(list, fmt.Sprintf("    %s, twice %d",
		d.paint(attribute, fmt.Sprintf("unanswered     %3d", t.unanswered)), t.twice))
}
