// Package handover decides who may still serve connections of a bucket that has moved, from what nodes say of it. It is pure: words in,
// decisions out. Agents say and hear (package clusterip); the cluster manager carries the words (package pacemaker).
//
// A bucket on a node, from the node's view, with drain set:
//
//	              start                      monitor: nobody serves (Next is empty), or the time is over
//	 ┌─────────┐  from any node ┌──────────┐                                              ┌───────┐
//	 │  not    ├───────────────►│ adopting ├─────────────────────────────────────────────►│ owned │
//	 │  here   │                └────┬─────┘                                              └───┬───┘
//	 └────▲────┘                     │ stop: says that it drains, tells deputies              │ the same
//	      │                     ┌────▼─────┐◄─────────────────────────────────────────────────┘
//	      └─────────────────────┤ draining ├──► adopting: start, it is owned again
//	sweep: no connection left,  └──────────┘
//	or the time is over:
//	says that it does not drain
//
// Who adopts answers only for connections that it knows itself, and for new ones; who drains, only for those that it knows. Only who owns
// without adopting sends a reset for what it does not know. So two nodes answer one client only if an adoption ends too early, and all
// rules are about that:
//
//   - A node's word about itself (Word) is written by itself alone. It goes with the node when that leaves the cluster.
//   - What deputies were told (Drainer) is written by the bucket's owner alone, of which there is one. It counts for nodes that have no word:
//     who has left in order serves on, and nobody speaks for it but they.
//   - A start asks nobody. It adopts from any node (Unnamed), and the first monitor learns from whom.
//   - A monitor that is to end an adoption, or a part of it, speaks first and waits until it hears itself: as the cluster manager keeps words
//     in one order for all, it has then heard all that was said before its start.
//   - A member that has not spoken may drain. It speaks when it is probed: before that nothing is started (pcmk__order_probes in Pacemaker's
//     lib/pacemaker/pcmk_sched_probes.c).
//   - A word about another layout (clone-max was changed, say) says nothing of the bucket of this one, which has other connections: it is as if the
//     node drained it.
//   - Of nodes that have left nobody may know any more, if who knew has gone, too. So who has heard of all drains says so (Word.Complete), and who comes
//     into the cluster hears it from them. If nobody says so, all nodes that have left are waited for; so are those with words about other layouts. Who has
//     waited long enough, or finds nobody to wait for, knows again.
//   - An adoption lasts longer than any drain that it waits for (Grace): a drainer may be held up, and monitors see the end come.
//   - A node whose word is gone is waited for unless it is dead: fenced, or lost where nobody fences.
package handover
