package ocf

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// MaxBuckets is the largest supported clone-max.
const MaxBuckets = 1024

// Clone is an instance's number and the number of instances. A resource that is not cloned is number 0 of 1.
type Clone struct {
	Bucket  uint32 // 0..Buckets-1
	Buckets uint32 // 1..MaxBuckets
}

// Resource returns the name of the resource without the number of the instance: "web-ip" for "web-ip:4".
func (e Environment) Resource() string {
	resource, _, _ := splitInstance(e.Instance)
	return resource
}

// Clone returns the clone instance of the action. Every error is ErrConfigured and contains the command that solves it.
//
// Pacemaker gives clone_max and clone for every action on a clone, except for the stop of an instance that is no longer
// configured: use BucketForStop there.
func (e Environment) Clone() (Clone, error) {
	id := e.cloneID()
	buckets := uint64(1)
	if v := e.Meta["clone_max"]; v != "" {
		n, err := strconv.ParseUint(v, 10, 32)
		if err != nil || n < 1 || n > MaxBuckets {
			return Clone{}, Errorf(ErrConfigured, "clone-max=%s is not a number from 1 to %d: run `pcs resource meta %s clone-max=…`",
				Quote(v), MaxBuckets, id)
		}
		buckets = n
	}

	// Instances of an anonymous clone have numbers too, but Pacemaker may give any of them any number, even the same one twice.
	unique := IsTrue(e.Meta["globally_unique"])
	if buckets > 1 && !unique {
		return Clone{}, Errorf(ErrConfigured, "clone-max=%d without globally-unique=true, but each instance is one bucket: "+
			"run `pcs resource meta %s globally-unique=true`", buckets, id)
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

// BucketForStop returns the bucket of a stop. Pacemaker stops an instance that is no longer configured, because clone-max was lowered,
// without clone, clone_max and globally_unique: only the instance's name has the number. The bucket may be above clone-max and MaxBuckets;
// a number that is too large becomes the largest, which never runs. ok is false if the name has no readable number.
func (e Environment) BucketForStop() (bucket uint32, ok bool) {
	_, number := e.instanceNumber()
	n, err := strconv.ParseUint(number, 10, 32)
	if err != nil && !errors.Is(err, strconv.ErrRange) {
		return 0, false
	}
	return uint32(n), true
}

// instanceNumber returns the number of the instance as text, and its source, for messages.
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

// cloneID returns the name of this resource's clone for pcs.
func (e Environment) cloneID() string {
	resource := OneLine(e.Resource())
	if resource == "" {
		resource = "RESOURCE"
	}
	return resource + "-clone"
}

// splitInstance splits an instance's name at its last colon if a name precedes it and only digits follow it.
func splitInstance(instance string) (resource, number string, found bool) {
	i := strings.LastIndexByte(instance, ':')
	if i < 1 || i == len(instance)-1 || strings.Trim(instance[i+1:], "0123456789") != "" {
		return instance, "", false
	}
	return instance[:i], instance[i+1:], true
}

// IsTrue reads a meta attribute as Pacemaker does: a value that is not a boolean is not true.
func IsTrue(value string) bool {
	is, _ := Boolean(value)
	return is
}

// Boolean reads a boolean as Pacemaker does (crm_str_to_boolean, from 3.0.2 on pcmk__parse_bool, in lib/common/strings.c). isBoolean is
// false for other values.
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
