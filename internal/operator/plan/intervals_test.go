package plan

import (
	"testing"
	"time"
)

func TestMonitorsEvery(t *testing.T) {
	const ten, minute = 10 * time.Second, time.Minute
	for intervals, want := range map[string][2]time.Duration{
		"": {ten, minute}, "30": {30 * time.Second, minute}, "30s": {30 * time.Second, minute}, "1m30s,5m": {90 * time.Second, 5 * minute},
		"60s": {}, "60,60s": {}, "0": {}, "1500ms": {}, "-5s": {}, "soon": {}, "30s,": {}, "1,2,3": {}, "99999999999": {},
	} {
		got, err := MonitorsEvery(intervals)
		if (err != nil) != (want == [2]time.Duration{}) {
			t.Errorf("%q: %v", intervals, err)
		}
		if err == nil && [2]time.Duration{got[0].Interval, got[1].Interval} != want {
			t.Errorf("%q: %v", intervals, got)
		}
	}
}
