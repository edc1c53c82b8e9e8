package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"sync"
	"time"

	"ocf-clusterip/internal/agent"
	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/kernel"
	"ocf-clusterip/internal/locks"
	"ocf-clusterip/internal/metadata"
	"ocf-clusterip/internal/ocf"
	"ocf-clusterip/internal/output"
	"ocf-clusterip/internal/pacemaker"
)

// A call is one call of the program: an action, or a command for administrators.
type call struct {
	process
	environment    ocf.Environment
	environmentErr error
	log            *ocf.Logger
	byHand         bool // a command for administrators
}

// metaData prints XML whatever OCF_OUTPUT_FORMAT is: pcs and crm_resource export OCF_OUTPUT_FORMAT=text for their own output, and the
// agent inherits it; they understand only XML.
func (c *call) metaData(context.Context) error {
	text, err := metadata.XML(version)
	if err != nil {
		return err
	}
	if _, err = c.stdout.Write(text); err != nil {
		return fmt.Errorf("write meta-data: %w", err)
	}
	return nil
}

// spec reads the environment. The error has everything that is wrong with it.
func (c *call) spec() (clusterip.Spec, error) {
	clone, cloneErr := c.environment.Clone()
	values, unknown, valuesErr := metadata.Parse(c.environment.Parameters)
	spec, specErr := clusterip.NewSpec(values, c.environment.Resource(), clone)
	spec.Probe = c.environment.Meta["interval"] == "" || c.environment.Meta["interval"] == "0"
	for _, name := range unknown {
		suggestion := ""
		if known, ok := metadata.Suggest(name); ok {
			suggestion = "; did you mean " + known + "?"
		}
		c.log.Warningf("parameter %s is unknown and has no effect%s", ocf.Quote(name), suggestion)
	}
	return spec, errors.Join(c.environmentErr, valuesErr, cloneErr, specErr)
}

// withSpec makes an action of what the agent does with the parameters.
func (c *call) withSpec(do func(agent.Agent, context.Context, clusterip.Spec) error) func(context.Context) error {
	return func(ctx context.Context) error {
		spec, err := c.spec()
		if err != nil {
			return err
		}
		return c.withAgent(ctx, func(ctx context.Context, a agent.Agent) error { return do(a, ctx, spec) })
	}
}

func (c *call) monitor(ctx context.Context) error {
	return c.withSpec(func(a agent.Agent, ctx context.Context, spec clusterip.Spec) error {
		return a.Monitor(ctx, spec, agent.CheckLevel(c.environment.CheckLevel))
	})(ctx)
}

// stop goes on whatever is wrong with the parameters: a failed stop gets the node fenced.
func (c *call) stop(ctx context.Context) error {
	spec, err := c.spec()
	if err != nil {
		c.log.Warningf("stopping although the parameters are wrong: %v", err)
	}
	bucket, ok := c.environment.BucketForStop()
	if !ok {
		return ocf.Errorf(ocf.ErrConfigured, "cannot stop: neither OCF_RESOURCE_INSTANCE=%s nor OCF_RESKEY_CRM_meta_clone=%s names the bucket",
			ocf.Quote(c.environment.Instance), ocf.Quote(c.environment.Meta["clone"]))
	}
	spec.Bucket = clusterip.Bucket(bucket)
	return c.withAgent(ctx, func(ctx context.Context, a agent.Agent) error {
		a.Lock = func(ctx context.Context, address netip.Addr) (agent.Unlocker, error) {
			return c.locks().LockIfPossible(ctx, address, func(err error) { c.log.Warningf("going on without a lock: %v", err) })
		}
		if len(spec.Addresses) == 0 {
			return a.StopResource(ctx, spec)
		}
		return a.Stop(ctx, spec)
	})
}

func (c *call) validateAll(ctx context.Context) error {
	if agent.CheckLevel(c.environment.CheckLevel) < agent.NetworkLevel {
		_, err := c.spec()
		return err
	}
	return c.withSpec(agent.Agent.Validate)(ctx)
}

// sweep is the background process: one for each address, until its last drain has ended.
func (c *call) sweep(ctx context.Context) error {
	spec, err := c.spec()
	if len(spec.Addresses) == 0 {
		return err
	}
	lock, err := c.locks().Sweeper(spec.Address())
	if lock == nil {
		return err // there is a sweeper already
	}
	defer func() { _ = lock.Release() }() // the process ends anyway
	return c.connected(func(a agent.Agent) error {
		return a.Sweep(ctx, spec, func() {
			if err := errors.Join(lock.Remove(), lock.Release()); err != nil {
				c.log.Warningf("%v", err)
			}
		})
	})
}

// inBackground is a process that nobody waits for: it logs to syslog, too.
func (c *call) inBackground(do func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		if system, err := openSystemLog(); err == nil {
			c.log = ocf.NewLogger(io.MultiWriter(c.stderr, system), c.environment.Debug)
		}
		err := do(ctx)
		if err != nil {
			c.log.Errorf("%v", err)
		}
		return err
	}
}

// tell is a background process: it tells clients that their connections are over.
func (c *call) tell(ctx context.Context) error {
	spec, err := c.spec()
	if err != nil {
		return err
	}
	waiting, cancel := context.WithTimeout(ctx, agent.TellTime)
	defer cancel()
	lock, err := c.locks().Teller(waiting, spec.Address())
	if lock == nil {
		return err
	}
	ctx, cancel = context.WithTimeout(ctx, agent.TellTime)
	defer cancel()
	done := sync.OnceFunc(func() {
		if err := errors.Join(lock.Remove(), lock.Release()); err != nil {
			c.log.Warningf("%v", err)
		}
	})
	defer done()
	return c.connected(func(a agent.Agent) error { return a.Tell(ctx, spec, done) })
}

// withAgent runs an action, which ends before Pacemaker would end it.
func (c *call) withAgent(ctx context.Context, do func(context.Context, agent.Agent) error) error {
	const marginShare = 10 // of the timeout: to give up, to print the reason and to exit
	ctx, cancel := context.WithTimeout(ctx, c.environment.Timeout-c.environment.Timeout/marginShare)
	defer cancel()
	return c.connected(func(a agent.Agent) error { return do(ctx, a) })
}

// connected connects an agent to the kernel and to Pacemaker.
func (c *call) connected(do func(agent.Agent) error) error {
	return c.withKernel(func(k kernel.Kernel) error {
		return do(agent.Agent{
			Kernel: k.Host, Log: c.log, Lock: c.locks().Lock,
			Cluster: pacemaker.Cluster{Environ: c.environ}, Node: c.environment.Meta["on_node"],
			StartSweeper: func() error { return locks.StartSweeper(c.environ) },
			StartTeller:  func() error { return locks.StartTeller(c.environ) },
		})
	})
}

func (c *call) withKernel(do func(kernel.Kernel) error) error {
	if c.euid != 0 {
		return ocf.Errorf(ocf.ErrPerm, "must run as root, not as user %d", c.euid)
	}
	return kernel.With(do)
}

func (c *call) locks() locks.Dir { return locks.Dir(c.environment.TempDir) }

// patientCluster is the cluster for a command: on a busy node an administrator would rather wait than get no answer.
func (c *call) patientCluster() pacemaker.Cluster {
	const patience = 10 * time.Second
	return pacemaker.Cluster{Environ: c.environ, Patience: patience}
}

func (c *call) screen() output.Screen { return output.ScreenOf(c.stdout, c.environ) }
