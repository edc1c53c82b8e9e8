#!/bin/sh
# Fencing for three nodes, where two have quorum: a node that is cut off stops its resources and is fenced, without a race.
# Run it as root on one of them. two-nodes.pcs.sh explains the defaults that it keeps.
set -eu

# A node without quorum releases its buckets as soon as it notices. It may not fence.
pcs property set no-quorum-policy=stop
pcs property set dc-deadtime=5s

# One power switch with an outlet for each node. The device may run on any node.
pcs stonith create power-switch fence_apc_snmp ip=10.0.0.9 community=private \
	pcmk_host_map="node1:1;node2:2;node3:3" pcmk_reboot_timeout=30s op monitor interval=60s
