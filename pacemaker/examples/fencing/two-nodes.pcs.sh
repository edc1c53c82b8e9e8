#!/bin/sh
# Fencing for two nodes. Run it as root on one of them; corosync.conf must have two_node: 1 (see two-nodes.corosync.conf).
set -eu

# Two properties keep their defaults, because their names depend on the version: stonith-enabled, from Pacemaker 3.0.2 on
# fencing-enabled, is true; stonith-timeout (fencing-timeout), the time after which a fencing counts as failed, is 60 s. Until the
# fencing has succeeded, no other node starts the buckets of the lost node.

# How long a starting node waits for others before it decides alone; the default is 20 s. After a common power failure it is part of
# the outage.
pcs property set dc-deadtime=5s

# One device each: the node's own management board. In a split the nodes try to fence each other, and with equal delays both might
# succeed. So the fencing of node1 waits 5 s longer, and node1 wins.
pcs stonith create fence-node1 fence_ipmilan ip=10.0.0.1 username=admin password=secret lanplus=1 \
	pcmk_host_list=node1 pcmk_delay_base=5s pcmk_reboot_timeout=30s op monitor interval=60s
pcs stonith create fence-node2 fence_ipmilan ip=10.0.0.2 username=admin password=secret lanplus=1 \
	pcmk_host_list=node2 pcmk_reboot_timeout=30s op monitor interval=60s
# A node never uses its own device: keep the device off that node.
pcs constraint location fence-node1 avoids node1
pcs constraint location fence-node2 avoids node2
