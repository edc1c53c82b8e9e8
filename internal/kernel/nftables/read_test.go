package nftables

import (
	"fmt"
	"testing"
)

// A dump that the kernel has torn, so that some elements are there twice and others not at all, is read again.
func TestTornDumpIsReadAgain(t *testing.T) {
	c := fakeConn(t, nil, nil)
	dumps := []set{
		{elements: []element{{key: 1}, {key: 3}, {key: 1}}},
		{elements: []element{{key: 3}, {key: 3}, {key: 2}}},
		{elements: []element{{key: 1}, {key: 2}, {key: 3}}},
	}
	reads := 0
	err := c.Consistently(t.Context(), "a set", func() error {
		reads++
		if dumps[reads-1].isTorn() {
			return fmt.Errorf("elements: %w", errTorn)
		}
		return nil
	})
	if err != nil || reads != len(dumps) {
		t.Errorf("%d reads, %v", reads, err)
	}
}

func TestTwoIntervalsSideBySideAreNoTear(t *testing.T) {
	s := set{elements: []element{{key: 80}, {key: 90, end: true}, {key: 90}, {key: 91, end: true}}}
	if s.isTorn() {
		t.Error("it is taken for one")
	}
}
