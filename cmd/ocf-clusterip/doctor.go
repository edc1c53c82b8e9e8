package main

import (
	"context"
	"errors"
	"os"
	"strings"
	"time"

	"github.com/urfave/cli/v3"

	"ocf-clusterip/internal/kernel"
	"ocf-clusterip/internal/ocf"
	"ocf-clusterip/internal/operator"
	"ocf-clusterip/internal/operator/doctor"
	"ocf-clusterip/internal/operator/gather"
)

const doctorDescription = `Checks the node, the cluster and the network for problems. For each problem
it prints what was found, why it matters, and the command that solves it.
It changes nothing, but may load kernel modules, as start does. Run it on
each node: each one compares itself with the cluster's configuration.

It checks the resources that the cluster configures, and those that are
installed on this node. Before there is any, or on a node without
Pacemaker, describe the resource by its parameters:

    ocf-clusterip doctor
    ocf-clusterip doctor --ip 192.168.10.3 --nic eth0 --buckets 8

The exit code is 0 if all checks are ok, 1 if there are warnings, and 2 if
there are failures. What cannot be read is a warning.`

// Corosync reads its configuration from this file unless the variable names another one.
const (
	corosyncConf     = "/etc/corosync/corosync.conf"
	corosyncVariable = "COROSYNC_MAIN_CONFIG_FILE"
)

// longestWait is the longest time that doctor listens for a querier, in seconds.
const longestWait = 3600

func (c *call) doctorCommand() *cli.Command {
	flags := []cli.Flag{
		&cli.BoolFlag{Name: "json", Usage: "write JSON"},
		numberFlag("wait", "with mac_mode=igmp: listen `SECONDS` for a querier; queriers send a query every 125 s", 0),
		numberFlag("buckets", "with --ip: the number of buckets, `N` (clone-max)", 1),
	}
	return c.forAdministrators(&cli.Command{
		Name: "doctor", Usage: "check the node, the cluster and the network", Description: doctorDescription,
		Flags: append(flags, parameterFlags("", allParameters())...), Action: c.doctor,
	})
}

func (c *call) doctor(ctx context.Context, command *cli.Command) error {
	described, err := describedBy(command)
	if err != nil {
		return err
	}
	var facts doctor.Facts
	err = c.withKernel(func(k kernel.Kernel) error {
		facts, err = gather.Doctor{
			Kernel: k, Cluster: c.patientCluster(), Files: os.DirFS("/"), CorosyncConf: c.corosyncConf(),
			Wait: time.Duration(command.Uint("wait")) * time.Second,
		}.Facts(ctx, described)
		return err
	})
	if err != nil {
		return err
	}
	findings := doctor.Examine(facts)
	if command.Bool("json") {
		err = operator.WriteJSON(c.stdout, doctor.NewReport(facts, findings))
	} else {
		err = doctor.Write(c.stdout, facts, findings, c.screen().Style)
	}
	if worst := doctor.Worst(findings); err == nil && worst != doctor.OK {
		return result(worst)
	}
	return err
}

// describedBy is the resource that the flags describe; nil if they describe none.
func describedBy(command *cli.Command) (*doctor.Resource, error) {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, ocf.Errorf(ocf.ErrArgs, format, args...)) }
	if command.Args().Present() {
		fault("%s is not a flag; give the address with --ip", ocf.Quote(command.Args().First()))
	}
	if command.Uint("wait") > longestWait {
		fault("--wait %d is not a number of seconds from 0 to %d", command.Uint("wait"), longestWait)
	}
	parameters := given(command, allParameters())
	buckets := command.Uint("buckets")
	if buckets == 0 || buckets > ocf.MaxBuckets {
		fault("--buckets %d is not a number from 1 to %d", buckets, ocf.MaxBuckets)
	}
	if len(parameters) == 0 && !command.IsSet("buckets") {
		return nil, errors.Join(faults...)
	}
	if parameters["ip"] == "" {
		fault("parameters of the resource and --buckets need --ip; without any of them, all configured and installed resources are checked")
		return nil, errors.Join(faults...)
	}
	r := gather.Described(parameters, "", uint32(min(buckets, ocf.MaxBuckets)))
	r.Origin = doctor.FromFlags
	if r.SpecErr != nil {
		fault("%w", r.SpecErr)
	}
	return &r, errors.Join(faults...)
}

func (c *call) corosyncConf() string {
	for _, variable := range c.environ {
		if path, is := strings.CutPrefix(variable, corosyncVariable+"="); is && path != "" {
			return path
		}
	}
	return corosyncConf
}
