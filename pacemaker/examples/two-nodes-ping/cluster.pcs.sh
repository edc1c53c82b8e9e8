#!/bin/sh
# Two nodes share one address. Each answers the pings of about half of all clients; when one fails, the other answers all.
# The same as cluster.crmsh and cluster.cib.xml, for pcs. Run it as root on one of them.
set -eu

# Without fencing, two nodes that do not see each other would both answer. It is enabled by default, and needs devices. If both nodes
# want to fence at once, the fencing of node1 waits 5 s, so node1 wins.
pcs stonith create fence-node1 fence_ipmilan ip=10.0.0.1 username=admin password=secret lanplus=1 \
	pcmk_host_list=node1 pcmk_delay_base=5s op monitor interval=60s timeout=20s --no-default-ops
pcs stonith create fence-node2 fence_ipmilan ip=10.0.0.2 username=admin password=secret lanplus=1 \
	pcmk_host_list=node2 op monitor interval=60s timeout=20s --no-default-ops

# One clone instance is one bucket. clone-node-max allows one node to own all of them. Without resource-stickiness=0 they would stay
# there when the other one is back. The resource is disabled until the clone is complete: a single instance would answer all clients.
pcs resource create ping-ip ocf:custom:clusterip ip=192.168.10.3 mac=01:02:03:04:05:06 hashmode=sourceip \
	op start interval=0s timeout=20s op stop interval=0s timeout=20s \
	op monitor interval=10s timeout=20s op monitor interval=60s timeout=20s OCF_CHECK_LEVEL=10 --no-default-ops --disabled
pcs resource clone ping-ip meta clone-max=8 clone-node-max=8 globally-unique=true resource-stickiness=0
pcs resource enable ping-ip
