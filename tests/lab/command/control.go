package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"ocf-clusterip/tests/lab"
	"ocf-clusterip/tests/lan"
)

// readyFD is the pipe that the process that holds a lab writes to when the lab is up.
const readyFD = 3

const askTimeout = 30 * time.Second

// request is a line of JSON on the socket of the process that holds a lab; answer is its answer.
type request struct{ Verb, Host, NIC string }

type answer struct {
	Err     string
	Text    string
	Enter   []string // what a command inside a host begins with
	Process int      // that holds the lab
}

func socket(place string) string { return filepath.Join(place, "socket") }

// ask sends a request to the process that holds the lab.
func ask(place string, r request) (answer, error) {
	conn, err := net.Dial("unix", socket(place))
	if err != nil {
		return answer{}, fmt.Errorf("no lab is up (%w); `lab up` makes one", err)
	}
	defer conn.Close()
	var a answer
	if err := errors.Join(
		conn.SetDeadline(time.Now().Add(askTimeout)),
		json.NewEncoder(conn).Encode(r),
		json.NewDecoder(conn).Decode(&a),
	); err != nil {
		return answer{}, err
	}
	if a.Err != "" {
		return a, errors.New(a.Err)
	}
	return a, nil
}

// control answers requests until the lab is to end.
func control(ctx context.Context, stop func(), place string, l *lab.Lab) error {
	if err := os.Remove(socket(place)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	listener, err := net.Listen("unix", socket(place)) // in a folder that only root may enter
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { listener.Close() })
	ready := os.NewFile(readyFD, "ready")
	if _, err := ready.WriteString("."); err != nil {
		return err
	}
	if err := ready.Close(); err != nil {
		return err
	}
	for {
		conn, err := listener.Accept()
		switch {
		case errors.Is(err, net.ErrClosed): // asked to end
			return nil
		case err != nil:
			return err
		}
		go func() {
			defer conn.Close()
			var r request
			if json.NewDecoder(conn).Decode(&r) != nil {
				return
			}
			a, err := do(ctx, l, r)
			if err != nil {
				a.Err = err.Error()
			}
			_ = json.NewEncoder(conn).Encode(a)
			if r.Verb == "down" {
				stop()
			}
		}()
	}
}

func do(ctx context.Context, l *lab.Lab, r request) (answer, error) {
	a := answer{Process: os.Getpid()}
	switch r.Verb {
	case "down":
		return a, nil
	case "status":
		a.Text = describe(ctx, l)
		return a, nil
	case "client":
		a.Enter = []string{"ip", "netns", "exec", l.Network.Client.Namespace}
		return a, nil
	}
	h := l.Host(r.Host)
	if h == nil {
		h = l.Host("node" + r.Host)
	}
	if h == nil {
		return a, fmt.Errorf("no host %q", r.Host)
	}
	nic, known := map[string]string{"": "", "lan": lan.NIC, "mgmt": lan.ManagementNIC}[r.NIC]
	if !known {
		return a, fmt.Errorf("no cable %q: lan and mgmt are", r.NIC)
	}
	var err error
	switch r.Verb {
	case "in":
		a.Enter, err = h.EnterCommand()
	case "on":
		err = h.On(ctx)
	case "off":
		err = h.Off()
	case "kill":
		err = h.Kill()
	case "hang":
		err = h.Hang()
	case "cut":
		err = h.Cut(nic)
	case "repair":
		err = h.Repair(ctx, nic)
	default:
		err = fmt.Errorf("%q is not understood", r.Verb)
	}
	return a, err
}

// describe returns which host is on, and its state in the cluster.
func describe(ctx context.Context, l *lab.Lab) string {
	var b strings.Builder
	status, err := l.Status(ctx)
	for _, h := range l.Hosts {
		power := "off"
		if h.IsOn() {
			power = "on"
		}
		fmt.Fprintf(&b, "%-8s %-4s", h.Name, power)
		if err == nil {
			n := status.Nodes[h.Name]
			fmt.Fprintf(&b, " %-8s", n)
			placement := status.Placement(resource)
			for _, bucket := range slices.Sorted(maps.Keys(placement)) {
				if placement[bucket] == h.Name {
					fmt.Fprintf(&b, " %d", bucket)
				}
			}
		}
		fmt.Fprintln(&b)
	}
	if err != nil {
		fmt.Fprintf(&b, "no cluster: %v\n", err)
	}
	return b.String()
}
