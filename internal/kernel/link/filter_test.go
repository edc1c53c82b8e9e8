package link

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"ocf-clusterip/internal/clusterip"
)

func TestParseDevMcast(t *testing.T) {
	text := "" +
		"2    eth0            1     0     01005e000001\n" +
		"2    eth0            1     1     010203040506\n" +
		"17   a-very-long-nam 2     0     01005e7f0a03\n" +
		"4    ib0             1     0     00ffffffff12401bffff000000000000000000000000ffffffff\n"
	want := []clusterip.Filter{
		{NICIndex: 2, MAC: clusterip.MAC{1, 0, 0x5e, 0, 0, 1}},
		{NICIndex: 2, MAC: clusterip.MAC{1, 2, 3, 4, 5, 6}, Static: true},
		{NICIndex: 17, MAC: clusterip.MAC{1, 0, 0x5e, 0x7f, 10, 3}},
	}
	got, err := parseDevMcast([]byte(text))
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("error %v (-want +got):\n%s", err, diff)
	}
	for _, bad := range []string{"2 eth0 1 0\n", "x eth0 1 0 01005e000001\n", "2 eth0 1 x 01005e000001\n", "2 eth0 1 0 01005\n"} {
		if _, err := parseDevMcast([]byte(bad)); err == nil {
			t.Errorf("%q is read as if it were right; what cannot be read must not count as not there", bad)
		}
	}
}

func FuzzParseDevMcast(f *testing.F) {
	f.Add([]byte("2    eth0            1     1     010203040506\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		filters, err := parseDevMcast(text)
		for _, filter := range filters {
			if filter.MAC.IsZero() && err == nil {
				t.Errorf("%q gives a filter without a MAC", text)
			}
		}
	})
}
