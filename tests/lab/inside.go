package lab

import (
	"fmt"
	"os"
	"path/filepath"
)

// The names under which this program runs inside a host.
const (
	roleInit    = "lab-init"   // the first process
	roleServers = "lab-server" // the application: answers the clients' questions
	roleFence   = "fence_lab"  // the fence agent of the power switch
	roleService = "service"    // starts and stops the cluster's daemons, for pcs
)

// Inside takes the process over if it was started as a part of a host: it returns its exit status then, and true. A
// program that uses the package calls it before anything else.
func Inside() (status int, taken bool) {
	var err error
	switch filepath.Base(os.Args[0]) {
	case roleInit:
		err = runInit()
	case roleServers:
		err = runServers()
	case roleFence:
		return fence(os.Args[1:], os.Stdin, os.Stdout, os.Stderr), true
	case roleService:
		err = callService(os.Args[1:])
	default:
		return 0, false
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", os.Args[0], err)
		return 1, true
	}
	return 0, true
}
