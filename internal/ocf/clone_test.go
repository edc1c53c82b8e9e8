package ocf

import (
	"math"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestClone(t *testing.T) {
	type meta = map[string]string
	const repair = "run `pcs resource meta web-ip-clone globally-unique=true`"

	tests := []struct {
		name     string
		instance string
		meta     meta
		want     Clone
		refused  string // part of the error; empty when there is none
	}{
		{"a resource that is not cloned", "web-ip", nil, Clone{0, 1}, ""},
		{"ocf-tester gives no name at all", "", nil, Clone{0, 1}, ""},
		{"an instance of a clone", "web-ip:4", meta{"clone": "4", "clone_max": "8", "globally_unique": "true"}, Clone{4, 8}, ""},
		{"the number comes from the name when clone is missing", "web-ip:4", meta{"clone_max": "8", "globally_unique": "true"}, Clone{4, 8}, ""},
		{"clone counts more than the name", "web-ip:4", meta{"clone": "5", "clone_max": "8", "globally_unique": "true"}, Clone{5, 8}, ""},
		{"empty attributes count as absent", "web-ip:0", meta{"clone": "", "clone_max": "", "globally_unique": ""}, Clone{0, 1}, ""},
		{"unique may be YES", "web-ip:1", meta{"clone_max": "2", "globally_unique": "YES"}, Clone{1, 2}, ""},
		{"unique may be On", "web-ip:1", meta{"clone_max": "2", "globally_unique": "On"}, Clone{1, 2}, ""},
		{"unique may be 1", "web-ip:1", meta{"clone_max": "2", "globally_unique": "1"}, Clone{1, 2}, ""},
		{"an anonymous clone of one", "web-ip:0", meta{"clone": "0", "clone_max": "1", "globally_unique": "false"}, Clone{0, 1}, ""},
		{"the last of the most buckets", "web-ip:1023", meta{"clone_max": "1024", "globally_unique": "true"}, Clone{1023, 1024}, ""},
		{"a colon in the name", "web:ip:1", meta{"clone_max": "2", "globally_unique": "true"}, Clone{1, 2}, ""},
		{"a name that ends in a word is not numbered", "web:ip", nil, Clone{0, 1}, ""},

		{"an anonymous clone", "web-ip:2", meta{"clone": "2", "clone_max": "8", "globally_unique": "false"}, Clone{}, repair},
		{"a clone without globally-unique", "web-ip:2", meta{"clone": "2", "clone_max": "8"}, Clone{}, repair},
		{
			"a clone whose globally-unique is a typing error", "web-ip:2",
			meta{"clone": "2", "clone_max": "8", "globally_unique": "ture"},
			Clone{},
			repair,
		},
		{
			"an anonymous instance without clone_max", "web-ip:2",
			meta{"globally_unique": "false"},
			Clone{},
			"`pcs resource meta web-ip-clone clone-max=… globally-unique=true`",
		},
		{"no clones at all", "web-ip:0", meta{"clone_max": "0"}, Clone{}, `clone-max="0" is not a number from 1 to 1024`},
		{
			"too many clones", "web-ip:0",
			meta{"clone_max": "1025", "globally_unique": "true"},
			Clone{},
			`clone-max="1025" is not a number from 1 to 1024`,
		},
		{
			"a clone_max beyond every integer", "web-ip:0", meta{"clone_max": strings.Repeat("9", 1000)}, Clone{}, `"… (1000 bytes) is not a number`,
		},
		{"a clone_max with a sign", "web-ip:0", meta{"clone_max": "+8"}, Clone{}, `clone-max="+8" is not a number`},
		{
			"the number just outside", "web-ip:8",
			meta{"clone_max": "8", "globally_unique": "true"},
			Clone{},
			`OCF_RESOURCE_INSTANCE="web-ip:8": the instance number is not one of 0 to 7 (clone-max=8)`,
		},
		{
			"a number that would wrap around to 0", "web-ip:4294967296",
			meta{"clone_max": "8", "globally_unique": "true"},
			Clone{},
			"not one of 0 to 7",
		},
		{
			"a number beyond every integer", "web-ip:99999999999999999999",
			meta{"clone_max": "8", "globally_unique": "true"},
			Clone{},
			"not one of 0 to 7",
		},
		{
			"a clone that is no number", "web-ip:1",
			meta{"clone": "one", "clone_max": "8", "globally_unique": "true"},
			Clone{},
			`OCF_RESKEY_CRM_meta_clone="one": the instance number is not one of 0 to 7`,
		},
		{"a clone below zero", "web-ip:1", meta{"clone": "-1", "clone_max": "8", "globally_unique": "true"}, Clone{}, `CRM_meta_clone="-1"`},
		{"a name without a resource", "", meta{"clone_max": "8"}, Clone{}, "`pcs resource meta RESOURCE-clone globally-unique=true`"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Environment{Instance: tt.instance, Meta: tt.meta}.Clone()
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("clone (-want +got):\n%s", diff)
			}
			if tt.refused == "" {
				if err != nil {
					t.Errorf("unexpected error: %v", err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.refused) {
				t.Errorf("error = %v, want one with %q", err, tt.refused)
			}
			if got := CodeOf(err); got != ErrConfigured {
				t.Errorf("code = %s, want %s", got, ErrConfigured)
			}
		})
	}
}

func TestBucketForStop(t *testing.T) {
	tests := []struct {
		name, instance, clone string
		bucket                uint32
		ok                    bool
	}{
		{"an instance that is configured", "web-ip:4", "4", 4, true},
		{"an orphan has nothing but its name", "web-ip:4", "", 4, true},
		{"a resource that is not cloned", "web-ip", "", 0, true},
		{"no name at all", "", "", 0, true},
		{"a number beyond every clone-max", "web-ip:5000", "", 5000, true},
		{"the greatest number", "web-ip:4294967295", "", 4294967295, true},
		{"a number that would wrap around to 0", "web-ip:4294967296", "", math.MaxUint32, true},
		{"a number beyond every integer", "web-ip:99999999999999999999", "", math.MaxUint32, true},
		{"a clone that is no number is not replaced by a guess", "web-ip:4", "x", 0, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			bucket, ok := Environment{Instance: tt.instance, Meta: map[string]string{"clone": tt.clone}}.BucketForStop()
			if bucket != tt.bucket || ok != tt.ok {
				t.Errorf("BucketForStop = %d, %t, want %d, %t", bucket, ok, tt.bucket, tt.ok)
			}
		})
	}
}

func TestResource(t *testing.T) {
	for instance, want := range map[string]string{
		"web-ip:4": "web-ip", "web-ip": "web-ip", "web-ip:": "web-ip:", ":4": ":4", "a:1:2": "a:1", "a:b": "a:b", "a:٤": "a:٤", "": "",
	} {
		if got := (Environment{Instance: instance}).Resource(); got != want {
			t.Errorf("resource of %q = %q, want %q", instance, got, want)
		}
	}
}

func FuzzClone(f *testing.F) {
	f.Add("web-ip:4", "4", "8", "true")
	f.Add("web-ip:4294967296", "", "1024", "yes")
	f.Add(":", "", "", "")
	f.Add("\xff:1\n", "-0", "00008", "TRUE")
	f.Fuzz(func(t *testing.T, instance, clone, cloneMax, unique string) {
		env := Environment{Instance: instance, Meta: map[string]string{"clone": clone, "clone_max": cloneMax, "globally_unique": unique}}
		bucket, ok := env.BucketForStop()
		if !ok && bucket != 0 {
			t.Errorf("a bucket of its own in spite of an unreadable number: %d", bucket)
		}
		if !strings.HasPrefix(instance, env.Resource()) {
			t.Errorf("resource %q is not the head of %q", env.Resource(), instance)
		}
		got, err := env.Clone()
		if err != nil {
			if CodeOf(err) != ErrConfigured {
				t.Errorf("code = %s: %v", CodeOf(err), err)
			}
			checkOneLine(t, err.Error())
			return
		}
		if got.Buckets < 1 || got.Buckets > MaxBuckets || got.Bucket >= got.Buckets {
			t.Errorf("impossible clone %+v", got)
		}
		if !ok || bucket != got.Bucket {
			t.Errorf("stop means bucket %d (%t), all else %d", bucket, ok, got.Bucket)
		}
		env.Instance = "x:" + strconv.Itoa(int(got.Bucket))
		env.Meta = map[string]string{"clone_max": strconv.Itoa(int(got.Buckets)), "globally_unique": "true"}
		if again, err := env.Clone(); err != nil || again != got {
			t.Errorf("said again: %+v, %v, first %+v", again, err, got)
		}
	})
}
