#!/bin/sh
# Fencing for three servers, where two make a quorum: the one that is cut off stops by itself and is fenced, without a race.
# Run it as root on one of them. What it leaves as it is by default, two-nodes.pcs.sh explains.
set -eu

# A server without quorum gives its buckets up, as soon as it notices. It may not fence.
pcs property set no-quorum-policy=stop
pcs property set dc-deadtime=5s

# One power switch with an outlet for each server. It does not matter on which server the device runs.
pcs stonith create power-switch fence_apc_snmp ip=10.0.0.9 community=private \
	pcmk_host_map="node1:1;node2:2;node3:3" pcmk_reboot_timeout=30s op monitor interval=60s
