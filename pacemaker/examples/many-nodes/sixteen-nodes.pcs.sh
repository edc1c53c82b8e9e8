#!/bin/sh
# Sixteen nodes, 64 buckets: four each. When one fails, four others get one more.
# Run it as root on one of the nodes, after fencing was configured (see ../fencing).
set -eu

# Several times as many buckets as nodes, or the failure of one would double another's load.
pcs resource create web-ip ocf:custom:clusterip ip=192.168.10.3 \
	op monitor interval=30s timeout=20s monitor interval=300s timeout=20s OCF_CHECK_LEVEL=10 \
	--disabled
pcs resource clone web-ip meta clone-max=64 clone-node-max=64 globally-unique=true resource-stickiness=0
pcs resource enable web-ip
