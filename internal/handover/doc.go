// Package handover decides which nodes may still serve connections of a bucket that has moved, from what nodes announce. It is pure: announcements in,
// decisions out. Package clusterip publishes and reads them; package pacemaker carries them as node attributes.
//
// A bucket on a node, as the node sees it, with drain above 0:
//
//	              start                      monitor: nobody serves (Next is empty), or the time is over
//	 ┌─────────┐  from any node ┌──────────┐                                              ┌───────┐
//	 │  not    ├───────────────►│ adopting ├─────────────────────────────────────────────►│ owned │
//	 │  here   │                └────┬─────┘                                              └───┬───┘
//	 └────▲────┘                     │ stop: announces the drain, tells deputies              │ the same
//	      │                     ┌────▼─────┐◄─────────────────────────────────────────────────┘
//	      └─────────────────────┤ draining ├──► adopting: start, it is owned again
//	sweep: no connection left,  └──────────┘
//	or the time is over:
//	announces that it does not drain
//
// A node that adopts answers connections that it knows itself, and new ones. A node that drains answers only those that it knows. Only a node that owns
// the bucket without adopting sends a reset for unknown connections. So two nodes can answer one client only if an adoption ends too early. All rules
// prevent that:
//
//   - A node's own announcement (Word) is written by that node alone. Pacemaker deletes it when the node leaves the cluster.
//   - What other nodes are told about a drain (Drainer) is written by the owner of the bucket alone, of which there is one. It counts for nodes without an
//     announcement: a node that has left in order still serves, and only these other nodes (deputies) can say so.
//   - A start asks nobody. It adopts from any node (Unnamed), and the first monitor finds out from which.
//   - A monitor that may end an adoption, or a part of it, first publishes something and waits until it reads that back. The cluster manager delivers
//     everything in one order to all nodes, so the monitor has then read all that was published before its start.
//   - A member without an announcement may drain. It publishes one when it is probed; Pacemaker starts nothing before that (pcmk__order_probes in
//     lib/pacemaker/pcmk_sched_probes.c).
//   - An announcement with another layout (after a change of clone-max, say) says nothing about this layout's bucket, which has other connections. The node
//     is treated as if it drained the bucket.
//   - Nobody may know any more that a node which has left drains, if all who knew have left, too. So a node that has heard of all drains says so
//     (Word.Complete), and nodes that join hear it from that one. If no node says so, all nodes that have left, and those with other layouts, are waited for.
//     A node that has waited long enough, or has nobody to wait for, is complete again.
//   - An adoption lasts longer than any drain that it waits for (Grace): the old owner may be held up, and a monitor must see the end come.
//   - A node whose announcement is gone is waited for unless it is dead: fenced, or lost in a cluster without fencing.
package handover
