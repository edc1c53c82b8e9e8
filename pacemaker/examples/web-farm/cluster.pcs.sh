#!/bin/sh
# A web farm: nginx runs on every server, and a server answers for the shared address only while its nginx works.
# Run it as root on one of the servers, after fencing was configured (see ../fencing).
set -eu

# nginx on each server. After one failure it must stop there (migration-threshold=1); five minutes without a further failure make
# the server try again (failure-timeout): so a mended server comes back without an admin. interleave=true: a server waits for
# nothing on another one.
pcs resource create web ocf:heartbeat:nginx configfile=/etc/nginx/nginx.conf \
	op monitor interval=10s timeout=20s \
	meta migration-threshold=1 failure-timeout=300s

# As long as nginx runs on a server, the server has the attribute web-works=1.
pcs resource create web-works ocf:pacemaker:attribute name=web-works active_value=1 inactive_value=0 \
	op monitor interval=10s timeout=20s
pcs resource group add web-group web web-works
pcs resource clone web-group meta interleave=true

# Buckets run where the attribute is 1. (A colocation and an order with the clone of nginx would do more harm than good: Pacemaker
# cannot interleave clones with different clone-node-max, so nginx failing on one server would restart the buckets of all.)
#
# drain=600: moves break no connection, as long as nginx goes on running where they were made. So before you stop a server, take its
# buckets away, and wait until its connections have ended: see docs/draining.md.
pcs resource create web-ip ocf:custom:clusterip ip=192.168.10.3 hashmode=sourceip drain=600 \
	meta migration-threshold=1 failure-timeout=300s --disabled
pcs resource clone web-ip meta clone-max=8 clone-node-max=8 globally-unique=true resource-stickiness=0
pcs constraint location web-ip-clone rule score=-INFINITY not_defined web-works or web-works ne 1

# Spread the buckets by their own number. By default Pacemaker evens out the number of all resources: a server that has lost its
# nginx would get buckets from the others for it.
pcs property set placement-strategy=balanced
for node in node1 node2 node3; do
	pcs node utilization "$node" buckets=8
done
pcs resource utilization web-ip buckets=1

# Only now may the buckets start.
pcs resource enable web-ip
