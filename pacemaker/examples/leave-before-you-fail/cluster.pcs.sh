#!/bin/sh
# Leave before you fail: a node that will soon fail releases its buckets while it can still do so cleanly.
# Run it as root on one of the nodes, after fencing was configured (see ../fencing).
set -eu

pcs resource create web-ip ocf:custom:clusterip ip=192.168.10.3 \
	meta migration-threshold=1 failure-timeout=120s --disabled
pcs resource clone web-ip meta clone-max=8 clone-node-max=8 globally-unique=true resource-stickiness=0

# Node health: agents write attributes named #health-...; with this strategy a node with a red one may run nothing but the agents that
# measure its health, until it is green again.
pcs property set node-health-strategy=only-green

# CPU load: yellow below 50 % idle, red below 10 %.
pcs resource create health-cpu ocf:pacemaker:HealthCPU yellow_limit=50 red_limit=10 \
	op monitor interval=10s timeout=10s meta allow-unhealthy-nodes=true clone

# Free disk space: red below 500 MB on / or /var/log.
pcs resource create health-disk ocf:pacemaker:SysInfo disks="/ /var/log" min_disk_free=500M disk_unit=M \
	op monitor interval=30s timeout=20s meta allow-unhealthy-nodes=true clone

# The outside world: how many of these routers answer a ping. No bucket runs on a node that reaches none of them, or that has not
# tried yet.
pcs resource create reach-outside ocf:pacemaker:ping host_list="192.168.10.1 192.168.10.2" name=reachable multiplier=1 dampen=5s \
	op monitor interval=10s timeout=60s clone
pcs constraint location web-ip-clone rule score=-INFINITY not_defined reachable or reachable lt 1

# The network interface: its link, and whether packets arrive. (The agent's own check_link checks only the link, and after each
# failure-timeout a start fails until the link is back. This one keeps the buckets away.)
pcs resource create watch-eth0 ocf:heartbeat:ethmonitor interface=eth0 name=eth0-works \
	op monitor interval=10s timeout=60s clone
pcs constraint location web-ip-clone rule score=-INFINITY not_defined eth0-works or eth0-works lt 1

# The application: add its own agent here, see ../web-farm. An application without an agent can be checked from outside, by any
# program that exits with 0 while the application works, as a systemd unit or with a small agent of your own.

# Only now may the buckets start.
pcs resource enable web-ip
