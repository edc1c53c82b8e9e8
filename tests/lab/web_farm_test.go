//go:build system

package lab

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ocf-clusterip/tests/harness"
)

// nginxConf is a whole one: nothing of it is outside the host's own /run.
const nginxConf = `pid /run/nginx.pid;
error_log /run/nginx.error;
events {}
http {
	access_log off;
	client_body_temp_path /run/nginx.body;
	proxy_temp_path /run/nginx.proxy;
	fastcgi_temp_path /run/nginx.fastcgi;
	uwsgi_temp_path /run/nginx.uwsgi;
	scgi_temp_path /run/nginx.scgi;
	server { listen 80; location / { return 200 "ok\n"; } }
}
`

// The example, as an admin runs it, with shorter times: the buckets of a node whose nginx crashes move away, and some come back.
func TestWebFarmExample(t *testing.T) {
	t.Parallel()
	agent, err := harness.Program()
	check(t, err)
	s := &scenario{Lab: start(t, Options{Agent: agent}), t: t, begin: time.Now()}
	all := []string{"node1", "node2", "node3"}
	conf := filepath.Join(t.TempDir(), "nginx.conf")
	check(t, os.WriteFile(conf, []byte(nginxConf), 0o600))
	text, err := os.ReadFile("../../pacemaker/examples/web-farm/cluster.pcs.sh")
	check(t, err)
	script := string(text)
	for _, change := range [][2]string{
		{"configfile=/etc/nginx/nginx.conf", "configfile=" + conf},
		{"interval=10s", "interval=2s"},
		{"failure-timeout=300s", "failure-timeout=6s"},
	} {
		if !strings.Contains(script, change[0]) {
			t.Fatalf("the example has no %s", change[0])
		}
		script = strings.ReplaceAll(script, change[0], change[1])
	}
	run(t, s.Hosts[0], "sh", "-c", script)
	s.even(buckets, all...)
	s.probe = s.ask(shared)
	s.exactlyOnce(shared, buckets)

	s.probe.Mark("nginx dies on node2")
	pid := strings.TrimSpace(run(t, s.Hosts[1], "cat", "/run/nginx.pid"))
	run(t, s.Hosts[1], "kill", "-KILL", "--", "-"+pid) // and its workers, which hold the port
	s.leftFrom("node2")
	s.answered()
	s.step("node2 gets buckets back by itself", func() {}, all...)
	s.exactlyOnce(shared, buckets)
	s.end()
}
