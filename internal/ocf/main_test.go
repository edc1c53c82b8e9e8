package ocf

import (
	"context"
	"fmt"
	"io"
	"os"
	"testing"
)

// holderEnv makes the test's own binary a process that takes a lock, says so, and keeps it until its stdin ends.
const holderEnv = "OCF_TEST_HOLD_LOCK"

func TestMain(m *testing.M) {
	if dir := os.Getenv(holderEnv); dir != "" {
		_, err := AcquireLock(context.Background(), dir, "web-ip")
		fmt.Println("locked:", err)
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0) // without Release, as a killed process leaves it
	}
	os.Exit(m.Run())
}
