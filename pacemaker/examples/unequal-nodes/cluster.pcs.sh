#!/bin/sh
# Unequal nodes: node1 is twice as strong as the others, and gets twice as many buckets.
# Run it as root on one of the nodes, after fencing was configured (see ../fencing).
set -eu

# balanced places the next bucket on the node with the most free capacity. So a node's capacity is its share of the buckets (8, 4 and 4
# of 16) plus a reserve, the same for all (8): while no node fails, each has its reserve free. Capacities are limits too: the reserves
# must have room for the buckets of the strongest node.
pcs property set placement-strategy=balanced
pcs node utilization node1 capacity=16
pcs node utilization node2 capacity=12
pcs node utilization node3 capacity=12

pcs resource create web-ip ocf:custom:clusterip ip=192.168.10.3 --disabled
pcs resource clone web-ip meta clone-max=16 clone-node-max=16 globally-unique=true resource-stickiness=0
pcs resource utilization web-ip capacity=1
pcs resource enable web-ip
