package gather

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"ocf-clusterip/internal/ocf"
	"ocf-clusterip/internal/operator"
	"ocf-clusterip/internal/operator/plan"
)

// Limits of what is read.
const (
	MaxSnapshots    = 4096
	largestSnapshot = 16 << 20 // bytes; 32 resources of 1024 buckets are 10 million
)

// Snapshots reads what nodes have counted from files that `metrics` or `status --json` have written. The error has all faults.
func Snapshots(names []string) ([]plan.Snapshot, error) {
	if len(names) > MaxSnapshots {
		return nil, ocf.Errorf(ocf.ErrArgs, "--measured: %d files are more than %d", len(names), MaxSnapshots)
	}
	var all []plan.Snapshot
	var faults []error
	for _, name := range names {
		snapshot, err := readSnapshot(name)
		if err != nil {
			faults = append(faults, ocf.Errorf(ocf.ErrArgs, "--measured: %w", err))
			continue
		}
		snapshot.File = name
		all = append(all, snapshot)
	}
	return all, errors.Join(faults...)
}

func readSnapshot(name string) (plan.Snapshot, error) {
	file, err := openNamed(name)
	if err != nil {
		return plan.Snapshot{}, err
	}
	defer file.Close() //nolint:errcheck // it was only read
	content, err := io.ReadAll(io.LimitReader(file, largestSnapshot+1))
	switch {
	case err != nil:
		return plan.Snapshot{}, err
	case len(content) > largestSnapshot:
		return plan.Snapshot{}, fmt.Errorf("%s is larger than %d bytes", name, largestSnapshot)
	}
	snapshot, line, err := parseSnapshot(content)
	switch {
	case err != nil && line > 0:
		return snapshot, fmt.Errorf("%s, line %d: %w", name, line, err)
	case err != nil:
		return snapshot, fmt.Errorf("%s: %w", name, err)
	}
	return snapshot, nil
}

// parseSnapshot reads either form. The line is that of the error; 0: it is about the whole file.
func parseSnapshot(content []byte) (snapshot plan.Snapshot, line int, err error) {
	if bytes.HasPrefix(bytes.TrimSpace(content), []byte("{")) {
		snapshot, line, err = parseStatus(content)
	} else {
		snapshot, line, err = parseMetrics(content)
	}
	switch {
	case err != nil:
	case len(snapshot.Resources) == 0:
		err = errors.New("no metrics and no status of a shared address: make the file with ocf-clusterip metrics or ocf-clusterip status --json")
	case snapshot.Node == "":
		err = errors.New("the name of the node is missing: Pacemaker did not answer there")
	case snapshot.Time.IsZero():
		err = errors.New("the time is missing (clusterip_last_run_timestamp_seconds)")
	}
	return snapshot, line, err
}

func parseStatus(content []byte) (plan.Snapshot, int, error) {
	var status operator.Status
	if err := json.Unmarshal(content, &status); err != nil {
		line := 0
		if wrong, is := errors.AsType[*json.SyntaxError](err); is {
			line = lineAt(content, wrong.Offset)
		} else if wrong, is := errors.AsType[*json.UnmarshalTypeError](err); is {
			line = lineAt(content, wrong.Offset)
		}
		return plan.Snapshot{}, line, err
	}
	snapshot := plan.Snapshot{Node: status.Node, Time: status.Time}
	if status.Cluster != nil {
		for _, node := range status.Cluster.Nodes {
			if isOnline(node.State) {
				snapshot.Online = append(snapshot.Online, node.Name)
			}
		}
	}
	for _, r := range status.Resources {
		if len(r.Addresses) == 0 {
			continue
		}
		counters := plan.Counters{
			Name: r.Name, Address: r.Addresses[0].String(), Buckets: len(r.Buckets),
			HashMode: r.HashMode, Prefix4: r.HashPrefix4, Prefix6: r.HashPrefix6, Counted: map[int]plan.Traffic{}, Owners: map[int][]string{},
		}
		for _, b := range r.Buckets {
			counters.Owners[int(b.Bucket)] = b.Nodes
			if b.Traffic != nil && slices.Contains(b.Nodes, status.Node) {
				counters.Counted[int(b.Bucket)] = plan.Traffic{Packets: float64(b.Traffic.Packets), Bytes: float64(b.Traffic.Bytes)}
			}
		}
		snapshot.Resources = append(snapshot.Resources, counters)
	}
	return snapshot, 0, nil
}

// isOnline reports whether a node of that state owns buckets. In maintenance mode it keeps those that it has.
func isOnline(state string) bool { return state == "online" || state == "maintenance" }

func lineAt(content []byte, offset int64) int {
	return 1 + bytes.Count(content[:min(max(0, offset), int64(len(content)))], []byte("\n"))
}

// A metricsFile collects the samples of a file. Others than those of `metrics` are skipped: files may be joined.
type metricsFile struct {
	plan.Snapshot
	resources map[key]*plan.Counters
	counted   map[key]map[int]map[string]float64 // by bucket and metric
}

// A key is a resource's. While a resource is renamed, two have the same address.
type key struct{ address, name string }

// keyOf returns whose a sample is, if a shared address is known. The label resource of a bucket's metrics is the instance: web-ip:3.
func keyOf(labels map[string]string) (key, bool) {
	name := labels["resource"]
	if bucket := labels["bucket"]; bucket != "" {
		name = strings.TrimSuffix(name, ":"+bucket)
	}
	return key{labels["address"], name}, labels["address"] != ""
}

func parseMetrics(content []byte) (plan.Snapshot, int, error) {
	file := metricsFile{resources: map[key]*plan.Counters{}, counted: map[key]map[int]map[string]float64{}}
	lines := bufio.NewScanner(bytes.NewReader(content))
	lines.Buffer(nil, largestSnapshot)
	number := 0
	for lines.Scan() {
		number++
		line := strings.TrimSpace(lines.Text())
		if !strings.HasPrefix(line, "clusterip_") {
			continue
		}
		name, labels, value, err := parseSample(line)
		if err == nil {
			err = file.add(name, labels, value)
		}
		if err != nil {
			return file.Snapshot, number, err
		}
	}
	keys := slices.SortedFunc(maps.Keys(file.resources), func(a, b key) int {
		return cmp.Or(cmp.Compare(a.address, b.address), cmp.Compare(a.name, b.name))
	})
	for _, of := range keys {
		counters := *file.resources[of]
		for bucket, counted := range file.counted[of] {
			if counted[ownedMetric] == 0 {
				continue
			}
			counters.Owners[bucket] = []string{file.Node}
			if packets, counts := counted[packetsMetric]; counts {
				counters.Counted[bucket] = plan.Traffic{Packets: packets, Bytes: counted[bytesMetric]}
			}
		}
		file.Resources = append(file.Resources, counters)
	}
	return file.Snapshot, 0, lines.Err()
}

// The metrics of a bucket that are used.
const (
	ownedMetric   = "clusterip_bucket_owned"
	packetsMetric = "clusterip_bucket_packets_total"
	bytesMetric   = "clusterip_bucket_bytes_total"
)

// add takes what a sample has.
func (f *metricsFile) add(name string, labels map[string]string, value float64) error {
	of, known := keyOf(labels)
	switch name {
	case "clusterip_node_info":
		f.Node = labels["node"]
	case "clusterip_last_run_timestamp_seconds":
		const latest = 1e11 // in the year 5138
		if value > latest {
			return fmt.Errorf("%s is not a time in seconds", strconv.FormatFloat(value, 'g', -1, 64))
		}
		f.Time = time.UnixMilli(int64(value * float64(time.Second/time.Millisecond))).UTC()
	case "clusterip_cluster_node_state":
		if isOnline(labels["state"]) && value == 1 {
			f.Online = append(f.Online, labels["node"])
		}
	case "clusterip_resource_info":
		if known {
			r := f.resource(of)
			r.HashMode = labels["hashmode"]
			r.Prefix4, _ = strconv.Atoi(labels["hash_prefix4"])
			r.Prefix6, _ = strconv.Atoi(labels["hash_prefix6"])
		}
	case "clusterip_resource_buckets":
		if known {
			f.resource(of).Buckets = int(min(value, ocf.MaxBuckets+1))
		}
	case ownedMetric, packetsMetric, bytesMetric:
		if known {
			return f.count(of, name, labels["bucket"], value)
		}
	}
	return nil
}

func (f *metricsFile) resource(of key) *plan.Counters {
	if f.resources[of] == nil {
		f.resources[of] = &plan.Counters{Name: of.name, Address: of.address, Counted: map[int]plan.Traffic{}, Owners: map[int][]string{}}
		f.counted[of] = map[int]map[string]float64{}
	}
	return f.resources[of]
}

func (f *metricsFile) count(of key, name, number string, value float64) error {
	parsed, err := strconv.ParseUint(number, 10, 16)
	if err != nil {
		return fmt.Errorf("bucket %s is not a number", ocf.Quote(number))
	}
	f.resource(of)
	bucket := int(parsed)
	if f.counted[of][bucket] == nil {
		f.counted[of][bucket] = map[string]float64{}
	}
	if _, twice := f.counted[of][bucket][name]; twice {
		return fmt.Errorf("%s of bucket %d is there twice: one file is one node at one time", name, bucket)
	}
	f.counted[of][bucket][name] = value
	return nil
}

// parseSample reads a line of Prometheus' text format, as `metrics` writes it. The library for the format is not used, for the reason that
// package operator has.
func parseSample(line string) (name string, labels map[string]string, value float64, err error) {
	const ofNames = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_:"
	end := strings.IndexFunc(line, func(r rune) bool { return !strings.ContainsRune(ofNames, r) })
	if end < 0 {
		return "", nil, 0, errors.New("a sample without a value")
	}
	name, rest := line[:end], line[end:]
	labels = map[string]string{}
	if strings.HasPrefix(rest, "{") {
		if labels, rest, err = parseLabels(rest[1:]); err != nil {
			return name, nil, 0, err
		}
	}
	fields := strings.Fields(rest)
	if len(fields) != 1 && len(fields) != 2 { // a time may follow
		return name, nil, 0, errors.New("a sample without a value")
	}
	value, err = strconv.ParseFloat(fields[0], 64)
	if err != nil || math.IsNaN(value) || math.IsInf(value, 0) || value < 0 {
		return name, nil, 0, fmt.Errorf("value %s is not a number from 0", ocf.Quote(fields[0]))
	}
	return name, labels, value, nil
}

// parseLabels reads labels up to the closing brace, and returns what is behind it.
func parseLabels(line string) (labels map[string]string, rest string, err error) {
	labels = map[string]string{}
	for {
		line = strings.TrimLeft(line, " \t,")
		if behind, closed := strings.CutPrefix(line, "}"); closed {
			return labels, behind, nil
		}
		name, behind, ok := strings.Cut(line, "=")
		behind, quoted := strings.CutPrefix(strings.TrimLeft(behind, " \t"), `"`)
		if !ok || !quoted {
			return nil, "", errors.New("a label without a value in quotes")
		}
		var value strings.Builder
		end := -1
		for i := 0; i < len(behind) && end < 0; i++ {
			switch c := behind[i]; {
			case c == '"':
				end = i
			case c == '\\' && i+1 < len(behind):
				i++
				value.WriteString(strings.Replace(behind[i:i+1], "n", "\n", 1))
			default:
				value.WriteByte(c)
			}
		}
		if end < 0 {
			return nil, "", errors.New("a label value without its closing quote")
		}
		labels[strings.TrimSpace(name)] = value.String()
		line = behind[end+1:]
	}
}
