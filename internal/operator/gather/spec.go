package gather

import (
	"errors"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/metadata"
	"ocf-clusterip/internal/ocf"
)

// Spec returns the spec that these parameters request, and the names of those that are unknown and have no effect. Faults are
// ocf.ErrArgs, because somebody has typed them.
func Spec(parameters map[string]string, resource string, buckets uint32) (spec clusterip.Spec, unknown []string, err error) {
	values, unknown, parseErr := metadata.Parse(parameters)
	spec, specErr := clusterip.NewSpec(values, resource, ocf.Clone{Buckets: buckets})
	if err := errors.Join(parseErr, specErr); err != nil {
		return spec, unknown, ocf.Errorf(ocf.ErrArgs, "%w", err)
	}
	return spec, unknown, nil
}
