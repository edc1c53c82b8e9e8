// Package handover decides which nodes may still serve connections of a bucket that has moved, from what nodes announce. It is pure:
// announcements in, decisions out. Package agent publishes and reads them; package pacemaker stores them as node attributes.
//
// A bucket on a node, as the node sees it, with drain above 0:
//
//	              start                      monitor: Remaining is empty, or the time is over
//	 ┌─────────┐  from any node ┌──────────┐                                              ┌───────┐
//	 │  not    ├───────────────►│ adopting ├─────────────────────────────────────────────►│ owned │
//	 │  here   │                └────┬─────┘                                              └───┬───┘
//	 └────▲────┘                     │ stop: announces the drain, also at relays              │ the same
//	      │                          │◄───────────────────────────────────────────────────────┘
//	      │                          ├───────────────────────────┐ MayLinger: announces that, too
//	      │                          │                     ┌─────▼─────┐
//	      │                          │                     │ lingering ├──► adopting: start, it is owned again
//	      │                          │                     └─────┬─────┘
//	      │                          │◄──────────────────────────┘ the kernel: another node requests the bucket, or the time is over;
//	      │                          │                             sweep: announces that it only drains
//	      │                     ┌────▼─────┐
//	      └─────────────────────┤ draining ├──► adopting: start, it is owned again
//	sweep: no connection left,  └──────────┘
//	or the time is over:
//	announces that it does not drain
//
// A node that adopts answers connections that it knows itself, and new ones. A node that drains answers only those that it knows. One that
// lingers answers new ones, too. Only a node that owns the bucket without adopting sends a reset for unknown connections. So two nodes can
// answer one client only if an adoption ends too early, or if a node owns the bucket while another one lingers with it. All rules prevent
// that. Those about drains:
//
//   - A node's own Announcement is written by that node alone. Pacemaker deletes it when the node leaves the cluster.
//   - A Relayed announcement is written by the owner of the bucket alone, of which there is one. It counts for nodes without an
//     announcement of their own: a node that was shut down still serves, and only the relays still have that.
//   - A start does not ask who drains. It adopts from AnyNode, and the first monitor finds out from which.
//   - A monitor that may end an adoption, or a part of it, first publishes something and waits until it reads that back. The cluster
//     manager delivers everything in one order to all nodes, so the monitor has then read all that was published before its start.
//   - A member without an announcement may drain. It publishes one when it is probed; Pacemaker starts nothing before that
//     (pcmk__order_probes in lib/pacemaker/pcmk_sched_probes.c).
//   - An announcement with another layout (after a change of clone-max, say) says nothing about this layout's bucket, which has other
//     connections. The node is treated as if it drained the bucket.
//   - That a node which has left drains is forgotten if all nodes that knew have left, too. So a node that has read of all drains publishes
//     that (Announcement.Complete), and nodes that join read it. If no announcement is complete, the adoption waits for all nodes that have
//     left, and for those with other layouts. A node that has waited long enough, or has no node to wait for, is complete again.
//   - An adoption lasts longer than any drain that it waits for (GracePeriod): the old owner may be paused, and a monitor must run before
//     the end.
//   - An adoption waits for a node whose announcement is gone, unless the node is dead: fenced, or lost in a cluster without fencing.
//
// Those about lingering:
//
//   - At most one node lingers with a bucket, its last owner, and only while no node owns it. So a start needs nobody's consent if the
//     bucket lingers on its own node, and an owner clears what is relayed about lingering (RelayAdoption).
//   - A node lingers only if whichever member Pacemaker starts the bucket on can end that (MayLinger). All members must have announced it.
//   - It announces that, with the key for requests, before it releases the bucket, itself and at the relays.
//   - A start publishes something, waits until it reads that back, and has then read of the node that lingers (Lingerers). It owns the
//     bucket when that node's kernel has confirmed its request, or when the announced time is over.
//   - If nobody is named, a node without an announcement may linger all the same (HidesLingerers): it has left, and those that knew have
//     left too; or the node that starts the bucket has joined, and has not received the others' announcements yet. It waits then, unless
//     an announcement is complete. A node that joins and reads of a node that lingers does not repeat that, and so is not complete.
//   - A probe publishes that the bucket lingers: the node may have left and joined again, and its own announcement wins over a relayed one.
//   - Buckets of another layout have other packets: a start waits until none of them lingers (OtherLayoutLingers).
//   - With linger=0 a start asks nobody. So when linger or drain is switched off, a bucket that is moving at that moment may have two nodes
//     that answer, until the old time is over.
package handover
