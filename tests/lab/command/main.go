// Command lab lets a person play with a Pacemaker cluster that runs on this one machine: see package lab. It needs root.
//
//	lab up [NODES]           make a cluster, 3 nodes by default, with the address 192.168.10.3 as resource web-ip
//	lab in NODE COMMAND...   run a command inside a host: lab in 1 crm_mon; without a command, a shell
//	lab client [COMMAND...]  the same on the client, which is on the LAN but not in the cluster
//	lab status               which host is on, and which owns which bucket
//	lab off NODE             switch its power off, without a shutdown
//	lab on NODE              switch it on again
//	lab kill NODE            end all its processes; the kernel lives on
//	lab hang NODE            stop all its processes
//	lab cut NODE lan|mgmt    pull a cable
//	lab repair NODE lan|mgmt put it back
//	lab down                 remove everything
//
// NODE is a number from 1 or a name. LAB_NAME in the environment distinguishes labs that run side by side. LAB_ROOT names the root file
// system that the hosts run in, such as tests/make-root makes.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"ocf-clusterip/tests/lab"
)

const (
	defaultName = "lab"
	resource    = "web-ip"
)

func main() {
	if status, taken := lab.Inside(); taken {
		os.Exit(status)
	}
	if err := run(os.Args[1:]); err != nil {
		if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
			os.Exit(exit.ExitCode())
		}
		fmt.Fprintf(os.Stderr, "lab: %v\n", err)
		os.Exit(1)
	}
}

const usage = `usage: lab up [NODES] | down | status | in NODE [COMMAND...] | client [COMMAND...]
       lab off|on|kill|hang NODE | cut|repair NODE lan|mgmt`

func run(args []string) error {
	if len(args) == 0 {
		return errors.New(usage)
	}
	name := os.Getenv("LAB_NAME")
	if name == "" {
		name = defaultName
	}
	if name != filepath.Base(name) || strings.HasPrefix(name, ".") {
		return fmt.Errorf("LAB_NAME=%q is not a plain name", name)
	}
	place := filepath.Join("/run", "ocf-clusterip-"+name)
	verb, rest := args[0], args[1:]
	switch {
	case verb == "up" && len(rest) <= 1:
		return up(place, rest)
	case verb == "serve" && len(rest) == 2: // what up starts
		return serve(place, rest[0], rest[1])
	case verb == "down" && len(rest) == 0:
		return down(place)
	case verb == "status" && len(rest) == 0:
		answer, err := ask(place, request{Verb: verb})
		fmt.Print(answer.Text)
		return err
	case verb == "in" && len(rest) >= 1, verb == "client":
		return enter(place, verb, rest)
	case (verb == "off" || verb == "on" || verb == "kill" || verb == "hang") && len(rest) == 1:
		_, err := ask(place, request{Verb: verb, Host: rest[0]})
		return err
	case (verb == "cut" || verb == "repair") && len(rest) == 2:
		_, err := ask(place, request{Verb: verb, Host: rest[0], NIC: rest[1]})
		return err
	}
	return errors.New(usage)
}

// up starts the process that holds the lab, and waits until that has built it.
func up(place string, args []string) error {
	nodes := "3"
	if len(args) == 1 {
		nodes = args[0]
	}
	if n, err := strconv.Atoi(nodes); err != nil || n < 1 || n > 32 {
		return fmt.Errorf("%q nodes: 1..32 are possible", nodes)
	}
	if _, err := ask(place, request{Verb: "status"}); err == nil {
		return errors.New("it is up already; `lab down` ends it")
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	agent := filepath.Join(filepath.Dir(self), "ocf-clusterip")
	if _, err := os.Stat(agent); err != nil {
		return fmt.Errorf("%w; `make lab` builds it beside this program", err)
	}
	if err := os.MkdirAll(place, 0o700); err != nil {
		return err
	}
	logfile, err := os.OpenFile(filepath.Join(place, "log"), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer logfile.Close()
	fmt.Printf("booting %s hosts and waiting for their cluster (the log is %s) ...\n", nodes, logfile.Name())
	begin := time.Now()
	ready, writer, err := os.Pipe()
	if err != nil {
		return err
	}
	cmd := exec.Command(self, "serve", nodes, agent)
	cmd.Stdout, cmd.Stderr = logfile, logfile
	cmd.ExtraFiles = []*os.File{writer}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	writer.Close()
	if n, _ := ready.Read(make([]byte, 1)); n == 0 {
		text, _ := os.ReadFile(logfile.Name())
		return fmt.Errorf("the lab did not come up:\n%s", text)
	}
	fmt.Printf(
		"up after %.1f s. Next, for instance:\n\n  lab in 1 crm_mon\n  lab client ping 192.168.10.3\n  lab off 2\n",
		time.Since(begin).Seconds(),
	)
	return nil
}

// serve holds a lab until it is asked to end.
func serve(place, nodes, agent string) error {
	syscall.CloseOnExec(readyFD)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	n, err := strconv.Atoi(nodes)
	if err != nil {
		return err
	}
	l, err := lab.New(ctx, lab.Options{Nodes: n, Agent: agent, Log: os.Stderr})
	if err != nil {
		return err
	}
	if _, err := l.Hosts[0].Run(ctx, "pcs", "resource", "create", resource, "ocf:custom:clusterip", "ip=192.168.10.3", "clone",
		"clone-max="+strconv.Itoa(2*n+2), "clone-node-max="+strconv.Itoa(2*n+2), "globally-unique=true", "resource-stickiness=0"); err != nil {
		return errors.Join(err, l.Close())
	}
	return errors.Join(control(ctx, stop, place, l), l.Close())
}

// down ends the process that holds the lab, and waits until it is gone.
func down(place string) error {
	answer, err := ask(place, request{Verb: "down"})
	if err != nil {
		return err
	}
	for range 600 {
		if err := syscall.Kill(answer.Process, 0); err == syscall.ESRCH {
			return os.RemoveAll(place)
		}
		time.Sleep(50 * time.Millisecond)
	}
	return fmt.Errorf("process %d, which holds the lab, does not end", answer.Process)
}

// enter becomes a command inside a host.
func enter(place, verb string, rest []string) error {
	r := request{Verb: verb}
	if verb == "in" {
		r.Host, rest = rest[0], rest[1:]
	}
	answer, err := ask(place, r)
	if err != nil {
		return err
	}
	if len(rest) == 0 {
		rest = []string{"bash"}
	}
	argv := append(answer.Enter, rest...)
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	return cmd.Run()
}
