package main

import (
	"fmt"
	"slices"
	"time"
)

// series are the times that were measured for one thing.
type series []time.Duration

func (s series) median() time.Duration {
	sorted := slices.Sorted(slices.Values(s))
	middle := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[middle]
	}
	return (sorted[middle-1] + sorted[middle]) / 2
}

func (s series) bounds() (least, most time.Duration) { return slices.Min(s), slices.Max(s) }

func seconds(d time.Duration) string { return fmt.Sprintf("%.2f s", d.Seconds()) }
