#!/bin/sh
# Fencing for two servers. Run it as root on one of them; corosync.conf must say two_node: 1 (see two-nodes.corosync.conf).
set -eu

# Two properties are left as they are by default, because their names depend on the version: stonith-enabled, from Pacemaker 3.0.2
# on fencing-enabled, is true; stonith-timeout (fencing-timeout), how long all of a fencing may take before it counts as failed, is
# 60 s. Until a fencing has succeeded no bucket of the dead server is taken over.

# How long a server waits at its start for others before it decides alone; the default is 20 s. All of an outage after a common
# power failure waits for it.
pcs property set dc-deadtime=5s

# One device each: a server's own management board. In a split both try to fence each other, and with equal delays both might
# succeed: so whoever wants to fence node1 waits 5 s longer, and node1 wins.
pcs stonith create fence-node1 fence_ipmilan ip=10.0.0.1 username=admin password=secret lanplus=1 \
	pcmk_host_list=node1 pcmk_delay_base=5s pcmk_reboot_timeout=30s op monitor interval=60s
pcs stonith create fence-node2 fence_ipmilan ip=10.0.0.2 username=admin password=secret lanplus=1 \
	pcmk_host_list=node2 pcmk_reboot_timeout=30s op monitor interval=60s
# A server's own device is never used by itself: keep it off that server.
pcs constraint location fence-node1 avoids node1
pcs constraint location fence-node2 avoids node2
