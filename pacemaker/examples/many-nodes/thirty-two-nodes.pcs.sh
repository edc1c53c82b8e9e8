#!/bin/sh
# Thirty-two nodes, 256 buckets: eight each. Pacemaker and Corosync are designed for at most so many nodes.
# Run it as root on one of the nodes, after fencing was configured (see ../fencing).
set -eu

# 256 instances write to the CIB at each start and each change: monitor them seldom.
pcs resource create web-ip ocf:custom:clusterip ip=192.168.10.3 \
	op monitor interval=60s timeout=20s monitor interval=600s timeout=20s OCF_CHECK_LEVEL=10 \
	--disabled
pcs resource clone web-ip meta clone-max=256 clone-node-max=256 globally-unique=true resource-stickiness=0
pcs resource enable web-ip
