//go:build !oldkernel

package netns

import (
	"strings"
	"testing"

	"ocf-clusterip/internal/ocf"
)

// retries is how often a probe asks again where nobody answered: an answer must come at once.
const retries = 0

// This kernel has no CLUSTERIP target any more: that is said, and nothing is left.
func TestTargetBackendOnAKernelWithoutIt(t *testing.T) {
	p := newPatient(t, webIP("backend", "clusterip"))
	if r := p.start(2); status(r, ocf.ErrInstalled) != nil || !strings.Contains(r.Stderr, "CONFIG_IP_NF_TARGET_CLUSTERIP") {
		t.Errorf("status %d: %s", r.ExitCode, r.Stderr)
	}
	check(t, status(p.monitor(2), ocf.NotRunning))
	p.checkNothingIsLeft(t)
}
