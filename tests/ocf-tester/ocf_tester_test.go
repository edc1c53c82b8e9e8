//go:build system

package ocftester

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ocf-clusterip/internal/ocf"
	"ocf-clusterip/tests/harness"
)

// TestOCFTester lets the resource agents' own test tool judge the agent. Afterwards the node must be as it was.
func TestOCFTester(t *testing.T) {
	resources := []struct {
		name    string
		options []string
	}{
		{"defaults", nil},
		{"multicast", []string{"mac_mode=multicast"}},
		{"multicast with the article's MAC", []string{"mac_mode=multicast", "mac=01:02:03:04:05:06"}},
		{"igmp", []string{"mac_mode=igmp"}},
		{"unicast", []string{"mac_mode=unicast"}},
		{"ports hashed", []string{"hashmode=sourceip-sourceport-destport", "hash_seed=0xfffffffc"}},
		{"IPv6", []string{"ip=2001:db8:10::3"}},
		{
			"dual stack, igmp",
			[]string{"ip=" + address + " 2001:db8:10::3", "mac_mode=igmp", "hash_prefix4=24", "hash_prefix6=64", "services=tcp/80 tcp/443 icmp"},
		},
		{"all parameters", []string{
			"cidr_netmask=24", "mac_mode=unicast", "mac=02:02:03:04:05:06", "hashmode=sourceip-sourceport", "hash_seed=1",
			"check_link=false", "arp_count=1", "arp_interval=1", "drain=60",
		}},
	}
	instances := []struct {
		name    string
		options []string
	}{
		{"not cloned", nil},
		{"bucket 3 of 8", []string{"CRM_meta_clone_max=8", "CRM_meta_clone=3", "CRM_meta_globally_unique=true"}},
	}
	for _, resource := range resources {
		for _, instance := range instances {
			t.Run(resource.name+", "+instance.name, func(t *testing.T) {
				n := newNode(t)
				before := n.state(t)

				argv := []string{"ocf-tester", "-n", "web-ip", "-o", "ip=" + address, "-o", "nic=eth0"}
				for _, option := range append(resource.options, instance.options...) {
					argv = append(argv, "-o", option)
				}
				r := n.run(t, vars{
					"PATH": "/sbin:/bin:/usr/sbin:/usr/bin", "LC_ALL": "C", "OCF_ROOT": "/usr/lib/ocf", "HA_RSCTMP": n.locks,
				}, append(argv, agent)...)
				if r.ExitCode != 0 || !strings.Contains(r.Stdout, agent+" passed all tests") {
					t.Errorf("ocf-tester: status %d\n%s%s", r.ExitCode, r.Stdout, r.Stderr)
				}
				if strings.Contains(r.Stdout, "does not support the notify action") {
					t.Error("notify is not accepted")
				}
				if diff := cmp.Diff(before, n.state(t)); diff != "" {
					t.Errorf("the node is not as it was (-before +after):\n%s", diff)
				}
			})
		}
	}
}

// TestLifeOfAnInstance is the shortest way through the contract, with the calls that Pacemaker would make.
func TestLifeOfAnInstance(t *testing.T) {
	n := newNode(t)
	before := n.state(t)
	instance := service().With(harness.Instance(3, 8))
	probe := instance.With(params("CRM_meta_op_target_rc", "7"))
	recurring := instance.With(params("CRM_meta_interval", "10000"))
	deep := instance.With(params("CRM_meta_interval", "60000"), vars{"OCF_CHECK_LEVEL": "10"})
	deepest := instance.With(vars{"OCF_CHECK_LEVEL": "20"})

	for _, step := range []struct {
		what   string
		vars   vars
		action string
		want   ocf.ExitCode
	}{
		{"a probe finds nothing", probe, "monitor", ocf.NotRunning},
		{"the parameters are good", instance, "validate-all", ocf.Success},
		{"the first start", instance, "start", ocf.Success},
		{"a start of what is started", instance, "start", ocf.Success},
		{"a probe finds it", probe, "monitor", ocf.Success},
		{"a recurring monitor", recurring, "monitor", ocf.Success},
		{"a deep monitor", deep, "monitor", ocf.Success},
		{"a check level that is not implemented means the next lower", deepest, "monitor", ocf.Success},
		{"another bucket is not running", instance.With(harness.Instance(4, 8)), "monitor", ocf.NotRunning},
		{"new values of what can change in flight", instance.With(params("arp_count", "1")), "reload-agent", ocf.Success},
		{"notify does nothing", instance.With(params("CRM_meta_notify_type", "post")), "notify", ocf.Success},
		{"still running", recurring, "monitor", ocf.Success},
		{"the stop", instance, "stop", ocf.Success},
		{"a stop of what is stopped", instance, "stop", ocf.Success},
		{"a probe finds nothing again", probe, "monitor", ocf.NotRunning},
	} {
		if !t.Run(step.what, func(t *testing.T) { checkStatus(t, n.call(t, step.vars, step.action), step.want) }) {
			t.FailNow() // the next steps depend on this one
		}
	}
	if diff := cmp.Diff(before, n.state(t)); diff != "" {
		t.Errorf("the node is not as it was (-before +after):\n%s", diff)
	}
}
