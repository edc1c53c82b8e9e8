package sysctl

import (
	"errors"
	"io/fs"
	"testing"
)

func TestRead(t *testing.T) {
	if got, err := Read("net/ipv4/conf/lo/rp_filter"); err != nil || len(got) != 1 {
		t.Errorf("%q, %v", got, err)
	}
	if got, err := Read("net/ipv4/conf/lo/nonsense"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%q, %v", got, err)
	}
}
