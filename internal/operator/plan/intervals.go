package plan

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"ocf-clusterip/internal/ocf"
)

// MonitorsEvery returns the advised monitors with other intervals: a list, in the order of the meta-data, in seconds or with units. An
// empty one changes nothing.
func MonitorsEvery(intervals string) ([]Monitor, error) {
	monitors := Monitors()
	if intervals == "" {
		return monitors, nil
	}
	fault := fmt.Errorf("%s is not an interval of whole seconds such as 30s, nor two different ones such as 30s,300s", ocf.Quote(intervals))
	parts := strings.Split(intervals, ",")
	if len(parts) > len(monitors) {
		return monitors, fault
	}
	seen := map[time.Duration]bool{}
	for i, monitor := range monitors {
		if i < len(parts) {
			interval, err := time.ParseDuration(parts[i])
			if seconds, notSeconds := strconv.ParseUint(parts[i], 10, 31); notSeconds == nil {
				interval, err = time.Duration(seconds)*time.Second, nil
			}
			if err != nil || interval < time.Second || interval%time.Second != 0 {
				return monitors, fault
			}
			monitors[i] = monitor.Every(interval)
		}
		if seen[monitors[i].Interval] { // Pacemaker identifies a monitor by its interval
			return monitors, fault
		}
		seen[monitors[i].Interval] = true
	}
	return monitors, nil
}
