package lan

import (
	"testing"
)

// Start builds a network for a test, which ends with it. What is missing fails the test: a check that did not run
// must not look like one that passed.
func Start(t testing.TB, o Options) *Network {
	t.Helper()
	n, err := New(t.Context(), o)
	if err != nil {
		t.Fatalf("build a network: %v", err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Errorf("take the network away: %v", err)
		}
	})
	return n
}
