package iptclusterip

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"ocf-clusterip/internal/clusterip"
)

// parseNodes reads the target's file of an address: the nodes held, with commas between (clusterip_seq_show in
// net/ipv4/netfilter/ipt_CLUSTERIP.c). It is empty when none is.
func parseNodes(text string) ([]clusterip.Bucket, error) {
	var buckets []clusterip.Bucket
	text = strings.TrimSpace(text)
	if text == "" {
		return nil, nil
	}
	for one := range strings.SplitSeq(text, ",") {
		node, err := strconv.ParseUint(one, 10, 16)
		if err != nil || node == 0 || node > MaxBuckets {
			return nil, fmt.Errorf("%q is no list of nodes from 1 to %d", text, MaxBuckets)
		}
		buckets = append(buckets, clusterip.Bucket(node-1))
	}
	slices.Sort(buckets)
	return slices.Compact(buckets), nil
}
