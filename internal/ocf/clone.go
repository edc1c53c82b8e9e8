package ocf

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// MaxBuckets is the greatest clone-max that is supported.
const MaxBuckets = 1024

// Clone says which of how many instances this one is. A resource that is not cloned is number 0 of 1.
type Clone struct {
	Bucket  uint32 // 0..Buckets-1
	Buckets uint32 // 1..MaxBuckets
}

// Resource returns the name of the resource without the number of the instance: "web-ip" for "web-ip:4".
func (e Environment) Resource() string {
	resource, _, _ := splitInstance(e.Instance)
	return resource
}

// Clone returns the clone instance that this call is about. Every error is ErrConfigured and says how to mend it.
//
// Pacemaker gives clone_max and clone for every action on a clone, except for the stop of an instance that is no longer
// configured: use BucketForStop there.
func (e Environment) Clone() (Clone, error) {
	id := e.cloneID()
	buckets := uint64(1)
	if v := e.Meta["clone_max"]; v != "" {
		n, err := strconv.ParseUint(v, 10, 32)
		if err != nil || n < 1 || n > MaxBuckets {
			return Clone{}, Errorf(ErrConfigured, "clone-max=%s is not a number from 1 to %d: set it with `pcs resource meta %s clone-max=…`",
				Quote(v), MaxBuckets, id)
		}
		buckets = n
	}

	// Instances of an anonymous clone have numbers too, but Pacemaker may give any of them any number, and the same one twice.
	unique := IsTrue(e.Meta["globally_unique"])
	if buckets > 1 && !unique {
		return Clone{}, Errorf(ErrConfigured, "clone-max=%d without globally-unique=true: every instance is a hash bucket of its own, "+
			"so the instances must be told apart: run `pcs resource meta %s globally-unique=true`", buckets, id)
	}

	source, number := e.instanceNumber()
	bucket, err := strconv.ParseUint(number, 10, 32)
	if err != nil || bucket >= buckets {
		remedy := ""
		if !unique {
			remedy = fmt.Sprintf(": if this is a clone, run `pcs resource meta %s clone-max=… globally-unique=true`", id)
		}
		return Clone{}, Errorf(ErrConfigured, "%s: the instance number is not one of 0 to %d (clone-max=%d)%s",
			source, buckets-1, buckets, remedy)
	}
	return Clone{Bucket: uint32(bucket), Buckets: uint32(buckets)}, nil
}

// BucketForStop returns the bucket that a stop is about, as far as it can be known: Pacemaker stops an instance that is no longer
// configured (clone-max was lowered) without clone, clone_max and globally_unique, with nothing but the instance's name. The
// bucket may lie beyond the present clone-max and beyond MaxBuckets; one too large to be counted is the largest, which never runs.
// ok is false when the number cannot be read: then it could be any.
func (e Environment) BucketForStop() (bucket uint32, ok bool) {
	_, number := e.instanceNumber()
	n, err := strconv.ParseUint(number, 10, 32)
	if err != nil && !errors.Is(err, strconv.ErrRange) {
		return 0, false
	}
	return uint32(n), true
}

// instanceNumber returns the number of the instance as text, and where it comes from, for messages.
func (e Environment) instanceNumber() (source, number string) {
	if v := e.Meta["clone"]; v != "" {
		return parameterPrefix + metaPrefix + "clone=" + Quote(v), v
	}
	source = "OCF_RESOURCE_INSTANCE=" + Quote(e.Instance)
	if _, number, found := splitInstance(e.Instance); found {
		return source, number
	}
	return source, "0"
}

// cloneID returns the name that pcs gives to the clone of this resource, for use in a command.
func (e Environment) cloneID() string {
	resource := OneLine(e.Resource())
	if resource == "" {
		resource = "RESOURCE"
	}
	return resource + "-clone"
}

// splitInstance cuts an instance's name at its last colon if there is a name before it and nothing but digits after it.
func splitInstance(instance string) (resource, number string, found bool) {
	i := strings.LastIndexByte(instance, ':')
	if i < 1 || i == len(instance)-1 || strings.Trim(instance[i+1:], "0123456789") != "" {
		return instance, "", false
	}
	return instance[:i], instance[i+1:], true
}

// IsTrue reads a meta attribute as Pacemaker does: what is no boolean is not true.
func IsTrue(value string) bool {
	is, _ := Boolean(value)
	return is
}

// Boolean reads a boolean as Pacemaker does (crm_str_to_boolean, from 3.0.2 on pcmk__parse_bool, in lib/common/strings.c), if it is one.
func Boolean(value string) (is, isBoolean bool) {
	switch strings.ToLower(value) {
	case "true", "on", "yes", "y", "1":
		return true, true
	case "false", "off", "no", "n", "0":
		return false, true
	default:
		return false, false
	}
}
