package clusterip

import (
	"fmt"
	"strings"

	"ocf-clusterip/internal/ocf"
)

// Admit returns the layout of the spec on the node, or why start must refuse it.
func (s Spec) Admit(seen State) (Layout, error) {
	layout, err := s.Resolve(seen)
	if err != nil {
		return layout, err
	}
	if len(seen.Tables.Conflicting) > 0 {
		return layout, ocf.Errorf(ocf.ErrGeneric, "the agent did not install %s, which has its name: examine it (nft list ruleset, "+
			"iptables-save) and delete it",
			strings.Join(seen.Tables.Conflicting, ", "))
	}
	others := Subtract(seen.Tables.Owned, []Bucket{s.Bucket})
	if installed := seen.Tables.Installed; installed != nil && len(others) > 0 {
		if differ := installed.Disagreements(layout); len(differ) > 0 {
			return layout, ocf.Errorf(ocf.ErrConfigured,
				"buckets %s of %s run here with other settings (%s); nodes that disagree answer twice or not at all. "+
					"To change them: pcs resource disable %s, change, pcs resource enable %s",
				FormatBuckets(others), s.Address(), strings.Join(differ, "; "), s.ResourceName(), s.ResourceName())
		}
	}
	if there := seen.Tables.Backend; there != "" && layout.Backend != "" && there != layout.Backend {
		return layout, ocf.Errorf(ocf.ErrGeneric, "%s is installed here with backend=%s, requested is %s: stop it first (pcs resource disable "+
			"%s)",
			s.Address(), there, layout.Backend, s.ResourceName())
	}
	if err := layout.Fits(layout.Backend); err != nil {
		return layout, fmt.Errorf("%w; or stop it first, so that another backend can be chosen (pcs resource disable %s)", err, s.ResourceName())
	}
	nic, ok := seen.NICAt(layout.NICIndex)
	if why := seen.UnicastFault(layout); why != "" {
		return layout, ocf.Errorf(ocf.ErrArgs, "%s", why)
	}
	if ok && s.CheckLink {
		if why := seen.LinkFault(nic); why != "" {
			return layout, ocf.Errorf(ocf.ErrGeneric, "%s: clients cannot reach the address through it (check_link=false starts all the same)", why)
		}
	}
	return layout, nil
}

// ResourceName is the resource's name for commands in messages.
func (s Spec) ResourceName() string {
	if s.Resource == "" {
		return "the resource"
	}
	return s.Resource
}
