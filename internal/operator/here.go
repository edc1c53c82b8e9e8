package operator

// Here returns what this node's kernel does for a bucket: Owned, Adopting, Lingering, Draining, or "" for nothing.
func (s Status) Here(b BucketStatus) string {
	is := func(value float64, _ bool) bool { return value == 1 }
	switch {
	case is(s.adopting(b)):
		return Adopting
	case is(s.owned(b)):
		return Owned
	case is(s.lingering(b)):
		return Lingering
	case is(s.draining(b)):
		return Draining
	default:
		return ""
	}
}
