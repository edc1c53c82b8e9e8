package pacemaker

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/beevik/etree"

	"ocf-clusterip/internal/clusterip"
)

// Where further programs of Pacemaker are.
const (
	crmMon  = "/usr/sbin/crm_mon"
	crmNode = "/usr/sbin/crm_node"
)

// Placement returns where the buckets of a resource are active, as the cluster manager sees it: by bucket the node, or several. The
// resource's name is that of the clone's instances, without their number.
func (c Cluster) Placement(ctx context.Context, resource string) (map[clusterip.Bucket][]string, error) {
	text, err := c.run(ctx, crmMon, "--one-shot", "--output-as=xml", "--include=none,resources")
	if err != nil {
		return nil, err
	}
	return parsePlacement(text, resource)
}

func parsePlacement(text, resource string) (map[clusterip.Bucket][]string, error) {
	document := etree.NewDocument()
	if err := document.ReadFromString(text); err != nil {
		return nil, fmt.Errorf("what crm_mon says: %w", err)
	}
	if document.FindElement("/pacemaker-result") == nil {
		return nil, errors.New("what crm_mon says is no result")
	}
	placement := map[clusterip.Bucket][]string{}
	for _, instance := range document.FindElements("//resource") {
		name, number, isInstance := strings.Cut(instance.SelectAttrValue("id", ""), ":")
		bucket, err := strconv.ParseUint(number, 10, 16)
		if !isInstance || err != nil || name != resource || instance.SelectAttrValue("role", "") != "Started" {
			continue
		}
		for _, node := range instance.SelectElements("node") {
			placement[clusterip.Bucket(bucket)] = append(placement[clusterip.Bucket(bucket)], node.SelectAttrValue("name", ""))
		}
	}
	return placement, nil
}

// NodeName returns this node's name in the cluster.
func (c Cluster) NodeName(ctx context.Context) (string, error) {
	text, err := c.run(ctx, crmNode, "--name")
	if name := strings.TrimSpace(text); err != nil || isNodeName(name) {
		return name, err
	}
	return "", errors.New("crm_node says no name")
}
