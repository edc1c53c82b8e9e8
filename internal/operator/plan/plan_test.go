package plan

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/ocf"
	"ocf-clusterip/internal/operator/style"
)

var update = flag.Bool("update", false, "write the golden files")

// golden compares a text with the file that is under version control.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v (make it with: go test ./internal/operator/plan -update)", err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s is out of date: go test ./internal/operator/plan -update (-file +now):\n%s", file, diff)
	}
}

func question(nodes, buckets, fail int) Question {
	return Question{Nodes: nodes, Buckets: buckets, Fail: fail, Monitors: Monitors(), Resource: Resource{Address: ExampleAddress}}
}

// withLog adds a log in which client i has requests(i) lines.
func withLog(t *testing.T, q Question, clients int, requests func(int) int) Question {
	t.Helper()
	var log strings.Builder
	for i := range clients {
		line := fmt.Sprintf("10.%d.%d.%d - - \"GET /\"\n", i>>16, i>>8&0xff, i&0xff)
		if i%10 == 9 {
			line = fmt.Sprintf("2001:db8::%x - - \"GET /\"\n", i)
		}
		log.WriteString(strings.Repeat(line, requests(i)))
	}
	log.WriteString("# rotated\n127.0.0.1 - - \"GET /server-status\"\n")
	q.Log = &Log{Name: "access.log", Tally: tallied(t, uint32(q.Buckets), MaxClients, log.String())}
	return q
}

// questions are of every kind.
func questions(t *testing.T) map[string]Question {
	t.Helper()
	slow := question(2, 8, 1)
	slow.Monitors[0], slow.Monitors[1] = slow.Monitors[0].Every(30*time.Second), slow.Monitors[1].Every(5*time.Minute)
	public := question(2, 8, 1)
	secret := clusterip.Seed(0x9ab01234)
	public.Resource.Address, public.Secret = "9.9.9.9", &secret
	slow.Resource = Resource{Address: "2001:db8::3", Parameters: []Parameter{{"hash_prefix6", "64"}, {"services", "tcp/80 tcp/443"}}}
	return map[string]Question{
		"two-nodes":      slow,
		"public-address": public,
		"three-nodes":    question(3, 12, 2),
		"sixteen-nodes":  question(16, 64, 2),
		"forty-nodes":    question(40, 100, 3),
		"one-node":       question(1, 4, 0),
		"many-clients":   withLog(t, question(4, 64, 1), 5000, func(int) int { return 2 }),
		"few-clients":    withLog(t, question(8, 32, 1), 60, func(i int) int { return 5 << (i % 7) }),
		"one-big-client": withLog(t, question(4, 16, 1), 100, func(i int) int { return 1 + 400/(1+100*i) }),
		"no-clients":     withLog(t, question(4, 16, 1), 0, nil),
		"uneven-clients": withLog(t, question(16, 64, 2), 900, func(i int) int { return 1 + 200/(i%300+20) }),
	}
}

func TestTextsAndPictures(t *testing.T) {
	for name, q := range questions(t) {
		t.Run(name, func(t *testing.T) {
			p := Make(q)
			var text, picture bytes.Buffer
			if err := p.WriteText(&text, style.Style{Width: 80}); err != nil {
				t.Fatal(err)
			}
			golden(t, name+".txt", text.Bytes())
			for line := range strings.Lines(text.String()) {
				if n := len([]rune(strings.TrimSuffix(line, "\n"))); n > 80 {
					t.Errorf("%d columns: %s", n, line)
				}
				if strings.TrimRight(line, " \n")+"\n" != line {
					t.Errorf("spaces at the end: %q", line)
				}
			}
			if err := p.WritePicture(&picture); err != nil {
				t.Fatal(err)
			}
			golden(t, name+".svg", picture.Bytes())
			for decoder := xml.NewDecoder(&picture); ; {
				if _, err := decoder.Token(); errors.Is(err, io.EOF) {
					break
				} else if err != nil {
					t.Fatalf("the picture is no XML: %v", err)
				}
			}
		})
	}
}

// docs/planning.md explains an answer and shows a picture: both must be what the command says.
func TestDocumentShowsWhatIsSaid(t *testing.T) {
	read := func(path ...string) string {
		text, err := os.ReadFile(filepath.Join(path...))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	docs := filepath.Join("..", "..", "..", "docs")
	if *update {
		if err := os.WriteFile(filepath.Join(docs, "planning.svg"), []byte(read("testdata", "uneven-clients.svg")), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var example strings.Builder
	for line := range strings.Lines(read("testdata", "sixteen-nodes.txt")) {
		if line != "\n" {
			line = "    " + line
		}
		example.WriteString(line)
	}
	if !strings.Contains(read(docs, "planning.md"), example.String()) {
		t.Errorf("docs/planning.md does not show this:\n%s", example.String())
	}
	if read(docs, "planning.svg") != read("testdata", "uneven-clients.svg") {
		t.Error("docs/planning.svg is out of date: go test ./internal/operator/plan -update")
	}
}

// What is written as JSON is what docs/schema says, and the schema leaves no field out.
func TestJSONKeepsItsSchema(t *testing.T) {
	schema, err := jsonschema.NewCompiler().Compile("../../../docs/schema/plan.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	for name, q := range questions(t) {
		t.Run(name, func(t *testing.T) {
			text, err := json.Marshal(Make(q))
			if err != nil {
				t.Fatal(err)
			}
			instance, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
			if err != nil {
				t.Fatal(err)
			}
			if err := schema.Validate(instance); err != nil {
				t.Errorf("%v\n%s", err, text)
			}
			instance.(map[string]any)["surprise"] = true
			if schema.Validate(instance) == nil {
				t.Error("the schema accepts anything")
			}
		})
	}
}

func TestColour(t *testing.T) {
	q := withLog(t, question(4, 16, 1), 100, func(i int) int { return 1 + 400/(1+100*i) })
	p := Make(q)
	var text bytes.Buffer
	look := style.Style{Width: 120, Colour: true}
	if err := p.WriteText(&text, look); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{look.Paint(style.Bold, "How many buckets"), "\x1b[31m█", "\x1b[32m█"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("%q is not in\n%s", want, text.String())
		}
	}
}

func TestBurdens(t *testing.T) {
	p := Make(question(16, 64, 2))
	for failed, want := range []float64{1, 1.25, 1.25} {
		if got := p.Outcomes[failed].ByBuckets.OfNow; got != want {
			t.Errorf("%d nodes fail: %v of an even share, want %v", failed, got, want)
		}
	}
	if got := p.Headroom(); got != 0.8 {
		t.Errorf("load no node above %v", got)
	}
	if got, want := len(p.Failures), 16+16*15/2; got != want || p.FailuresLeft != 0 {
		t.Errorf("%d failures are listed, want %d; %d are left out", got, want, p.FailuresLeft)
	}
	if p := Make(question(40, 160, 3)); p.FailuresLeft != 780+9880 || p.Outcomes[3].Tried > mostTried {
		t.Errorf("%d failures are left out, %d are tried", p.FailuresLeft, p.Outcomes[3].Tried)
	}
}

// Where not all failures were tried, a worse one may be among the others; what nodes bear in buckets is known all the same.
func TestWorstOfThoseTried(t *testing.T) {
	const tried = "Of the 19,900 ways in which 2 nodes can fail, 4,975 were tried. " +
		"Of the 1,313,400 ways in which 3 nodes can fail, 4,994 were tried."
	q := question(200, 800, 3)
	for name, row := range map[string]struct {
		q      Question
		begins string
		counts bool // says how many were tried
	}{
		"by requests": {withLog(t, q, 500, func(int) int { return 1 }), "Worst case of those tried: a remaining node", true},
		"by buckets":  {q, "Worst case: a remaining node", false},
	} {
		p := Make(row.q)
		var text, picture strings.Builder
		if err := errors.Join(p.WriteText(&text, style.Style{Width: 80}), p.WritePicture(&picture)); err != nil {
			t.Fatal(err)
		}
		words := strings.Join(strings.Fields(text.String()), " ")
		if !strings.Contains(words, row.begins) || !strings.Contains(picture.String(), row.begins) ||
			strings.Contains(words, tried) != row.counts {
			t.Errorf("%s: %q is missing, or how many were tried, in\n%s", name, row.begins, words)
		}
	}
}

// With the recommended number, no node carries more than 5/4 of an even share, whichever nodes fail.
func TestAdviceHolds(t *testing.T) {
	for nodes := 1; nodes <= ocf.MaxBuckets/enough; nodes++ {
		buckets := Advised(nodes)
		for left := 1; left <= nodes; left++ {
			if most := float64((buckets+left-1)/left) * float64(left) / float64(buckets); most > 1.25 {
				t.Errorf("%d of %d nodes are left, and one has %v of an even share", left, nodes, most)
			}
		}
	}
}

// Another seed is recommended only if it is likely to stay better, and then it does what the advice says.
func TestSeedAdvice(t *testing.T) {
	for name, row := range map[string]struct {
		nodes, buckets, clients int
		requests                func(int) int
		want                    string
	}{
		"many like clients":             {4, 64, 5000, func(int) int { return 1 }, Even},
		"one client is most of it":      {4, 16, 100, func(i int) int { return 1 + 400/(1+100*i) }, OneClient},
		"a few heavy ones":              {8, 32, 60, func(i int) int { return 5 << (i % 7) }, Better},
		"many of different weight":      {16, 64, 900, func(i int) int { return 1 + 200/(i%300+20) }, Chance},
		"few, and no seed is any good":  {4, 16, 5, func(int) int { return 1 }, NoBetter},
		"few, and none is much better":  {6, 24, 22, func(int) int { return 1 }, NoBetter},
		"nobody but the machine itself": {4, 16, 0, nil, NoRequests},
	} {
		t.Run(name, func(t *testing.T) {
			q := withLog(t, question(row.nodes, row.buckets, 1), row.clients, row.requests)
			got := Make(q).Clients.Reseed
			if got.Result != row.want {
				t.Fatalf("%+v, want %s", got, row.want)
			}
			if got.Result != Better {
				return
			}
			other := *q.Log.Tally
			if _, err := fmt.Sscan(got.Seed, &other.layout.Seed); err != nil {
				t.Fatal(err)
			}
			q.Log.Tally = &other
			worst := 0.0
			for _, node := range Make(q).Clients.ByNode {
				worst = max(worst, node.OfEven)
			}
			if worst != got.Then || got.Then >= got.OfEven {
				t.Errorf("%+v is promised, and it is %v", got, worst)
			}
		})
	}
}
