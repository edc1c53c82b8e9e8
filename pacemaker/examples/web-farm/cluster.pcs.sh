#!/bin/sh
# A web farm: nginx runs on every node, and a node answers for the shared address only while its nginx works.
# Run it as root on one of the nodes, after fencing was configured (see ../fencing).
set -eu

# nginx on each node. After one failure it must stop there (migration-threshold=1); after five minutes without another failure the node
# tries again (failure-timeout): so a repaired node comes back without an admin. interleave=true: a node does not wait for instances
# on other nodes.
pcs resource create web ocf:heartbeat:nginx configfile=/etc/nginx/nginx.conf \
	op monitor interval=10s timeout=20s \
	meta migration-threshold=1 failure-timeout=300s

# While nginx runs on a node, the node has the attribute web-works=1.
pcs resource create web-works ocf:pacemaker:attribute name=web-works active_value=1 inactive_value=0 \
	op monitor interval=10s timeout=20s
pcs resource group add web-group web web-works
pcs resource clone web-group meta interleave=true

# Buckets run where the attribute is 1: so none starts on a node before its nginx. (A colocation or a mandatory order with the clone of
# nginx would do more harm than good: Pacemaker cannot interleave clones with different clone-node-max, so a failure of nginx on one
# node would restart the buckets of all.)
#
# drain=600: moves break no connection while nginx keeps running on the old owner. So before you stop a node, move its buckets away, and
# wait until its connections have ended: see docs/draining.md.
pcs resource create web-ip ocf:custom:clusterip ip=192.168.10.3 hashmode=sourceip drain=600 \
	meta migration-threshold=1 failure-timeout=300s --disabled
pcs resource clone web-ip meta clone-max=8 clone-node-max=8 globally-unique=true resource-stickiness=0
pcs constraint location web-ip-clone rule score=-INFINITY not_defined web-works or web-works ne 1

# A node in standby, or one that leaves, stops its buckets before its nginx: else it refuses connections in between. kind=Optional: the
# order only counts when Pacemaker stops both anyway, so nginx's failure stops no bucket, and a bucket's failure does not keep nginx
# running. symmetrical=false: with the reverse order for starts as well, a bucket on its way to any node would wait for every nginx that
# is just starting. (To stop nginx alone, by a ban or disable, first move the buckets away: by themselves they leave after it.)
# The agent of nginx kills it: of what nginx has not read or answered by then, clients get a reset, and must repeat the request. To avoid
# that, move the buckets first, and wait (docs/draining.md).
pcs constraint order stop web-ip-clone then stop web-group-clone kind=Optional symmetrical=false

# Spread the buckets by their own number. By default Pacemaker balances the number of all resources: a node without its nginx would get
# buckets from the others instead.
pcs property set placement-strategy=balanced
for node in node1 node2 node3; do
	pcs node utilization "$node" buckets=8
done
pcs resource utilization web-ip buckets=1

# Only now may the buckets start.
pcs resource enable web-ip
