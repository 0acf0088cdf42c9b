package broker

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"
)

// The answers of a real Apache Kafka 4.3 to the script stand in testdata/admin/kafka43.json. To ask again, start one afresh
// with node id 1, turn the feature eligible.leader.replicas.version off (it sets a config of its own accord), and:
// go test ./broker -run AdminGolden -record-admin 127.0.0.1:19092
var (
	recordAdmin  = flag.String("record-admin", "", "bootstrap server of a fresh Apache Kafka to record answers of")
	rewriteAdmin = flag.Bool("rewrite-admin", false, "write down Skein's own answers where they differ on purpose")
)

const (
	kafkaAnswers = "testdata/admin/kafka43.json"
	skeinAnswers = "testdata/admin/skein.json"
)

// allCases are put in this order: the later ones use the topics of those before.
var allCases = slices.Concat(adminCases, reassignCases)

// adminScript puts the script's requests to one server.
type adminScript struct {
	t       testing.TB
	addr    string
	ids     map[string][16]byte // of the topics that the script made
	clients map[string]*kgo.Client
}

func newAdminScript(t testing.TB, addr string) *adminScript {
	s := &adminScript{t: t, addr: addr, ids: map[string][16]byte{}, clients: map[string]*kgo.Client{}}
	t.Cleanup(func() {
		for _, c := range s.clients {
			c.Close()
		}
	})
	return s
}

// client returns a client that speaks at most this version of one API.
func (s *adminScript) client(key, version int16) *kgo.Client {
	name := fmt.Sprint(key, version)
	if c := s.clients[name]; c != nil {
		return c
	}
	opts := []kgo.Opt{kgo.SeedBrokers(s.addr), kgo.RequestRetries(0), kgo.RetryTimeout(enough)}
	if version != newest {
		v := kversion.Stable()
		v.SetMaxKeyVersion(key, version)
		opts = append(opts, kgo.MaxVersions(v))
		name = fmt.Sprint(key, version)
	}
	c, err := kgo.NewClient(opts...)
	if err != nil {
		s.t.Fatal(err)
	}
	s.clients[name] = c
	return c
}

func (s *adminScript) ask(ctx context.Context, c adminCase) string {
	req := c.req(s)
	resp, err := s.client(req.Key(), c.ver).Broker(1).RetriableRequest(ctx, req)
	if err != nil {
		return "error: " + err.Error()
	}
	if r, ok := resp.(*kmsg.CreateTopicsResponse); ok && r.Version >= 7 {
		for _, t := range r.Topics {
			if t.ErrorCode == 0 && t.TopicID != [16]byte{} {
				s.ids[t.Topic] = t.TopicID
			}
		}
	}
	return plainAnswer(s.t, resp)
}

// produce writes records by a request of its own client and returns a harmless request.
func (s *adminScript) produce(topic string, partition int32, n int) kmsg.Request {
	c, err := kgo.NewClient(kgo.SeedBrokers(s.addr), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		s.t.Fatal(err)
	}
	defer c.Close()
	for i := range n {
		r := &kgo.Record{Topic: topic, Partition: partition, Value: []byte{byte(i)}}
		if err := c.ProduceSync(context.Background(), r).FirstErr(); err != nil {
			s.t.Fatal(err)
		}
	}
	return kmsg.NewPtrListPartitionReassignmentsRequest()
}

// plainAnswer renders an answer as JSON without what differs from run to run.
func plainAnswer(t testing.TB, resp kmsg.Response) string {
	raw, err := json.Marshal(resp)
	if err != nil {
		t.Fatal(err)
	}
	var v any
	if err := json.Unmarshal(raw, &v); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(plain(v)); err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(b.String())
}

func plain(v any) any {
	switch v := v.(type) {
	case map[string]any:
		if _, ok := v["IsSensitive"]; ok {
			return plainConfig(v)
		}
		for _, k := range []string{"Version", "ThrottleMillis", "UnknownTags", "TotalBytes", "UsableBytes"} {
			delete(v, k)
		}
		for k, e := range v {
			switch {
			case k == "TopicID" && !strings.Contains(fmt.Sprint(e), "1 2 3 0"):
				v[k] = strings.Trim(fmt.Sprint(e), "[] 0") != ""
			case k == "Dir":
				v[k] = "dir"
			default:
				v[k] = plain(e)
			}
		}
	case []any:
		for i := range v {
			v[i] = plain(v[i])
		}
		slices.SortFunc(v, func(a, b any) int { return cmp.Compare(sortKey(a), sortKey(b)) })
		if len(v) == 0 {
			return nil
		}
	}
	return v
}

func sortKey(v any) string {
	raw, _ := json.Marshal(v)
	if m, ok := v.(map[string]any); ok {
		for _, k := range []string{"Name", "Topic", "ResourceName", "Partition"} {
			if e, ok := m[k]; ok {
				return fmt.Sprint(e) + string(raw)
			}
		}
	}
	return string(raw)
}

// plainConfig is one config in one line.
func plainConfig(m map[string]any) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%v=%v source=%v read-only=%v sensitive=%v", m["Name"], m["Value"], m["Source"], m["ReadOnly"], m["IsSensitive"])
	if t, ok := m["ConfigType"]; ok {
		fmt.Fprintf(&b, " type=%v", t)
	}
	if syns, ok := m["ConfigSynonyms"].([]any); ok {
		for _, e := range syns {
			s := e.(map[string]any)
			fmt.Fprintf(&b, " %v=%v@%v", s["Name"], s["Value"], s["Source"])
		}
	}
	return b.String()
}

func (s *adminScript) run() map[string]string {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	answers := map[string]string{}
	for _, c := range allCases {
		if _, ok := answers[c.name]; ok {
			s.t.Fatalf("two cases are named %q", c.name)
		}
		a := s.ask(ctx, c)
		for range 5 {
			if !c.settle || *recordAdmin == "" {
				break
			}
			time.Sleep(200 * time.Millisecond) // only while recording: Kafka applies configs in the background
			a = s.ask(ctx, c)
		}
		answers[c.name] = a
	}
	return answers
}

func writeAnswers(t testing.TB, file string, answers map[string]string, only func(adminCase) bool) {
	var b strings.Builder
	b.WriteString("{\n")
	first := true
	for _, c := range allCases {
		if !only(c) {
			continue
		}
		if !first {
			b.WriteString(",\n")
		}
		first = false
		a := answers[c.name]
		if !json.Valid([]byte(a)) {
			raw, _ := json.Marshal(a)
			a = string(raw)
		}
		fmt.Fprintf(&b, "  %q: %s", c.name, a)
	}
	b.WriteString("\n}\n")
	if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}

func readAnswers(t testing.TB, file string) map[string]string {
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var v map[string]json.RawMessage
	if err := json.Unmarshal(raw, &v); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	out := map[string]string{}
	for k, r := range v {
		out[k] = string(r)
	}
	return out
}

// TestAdminRecord asks a real Kafka.
func TestAdminRecord(t *testing.T) {
	if *recordAdmin == "" {
		t.Skip("no -record-admin")
	}
	s := newAdminScript(t, *recordAdmin)
	s.ask(t.Context(), adminCase{ver: newest, req: replace(false, onBroker, "")}) // what the feature set before it was turned off
	time.Sleep(time.Second)
	writeAnswers(t, kafkaAnswers, s.run(), func(adminCase) bool { return true })
}

// ownConfig is the topic config that Kafka does not have, as the answers are written down: strings or lists of them.
var ownConfig = regexp.MustCompile(`"failover\.read=[^"]*",`)

// TestAdminGolden compares Skein's answers with Kafka's, except where they differ on purpose.
func TestAdminGolden(t *testing.T) {
	c := startCluster(t, 1, Config{})
	got := newAdminScript(t, c.addr).run()
	if *rewriteAdmin {
		writeAnswers(t, skeinAnswers, got, func(c adminCase) bool { return c.differs != "" })
	}
	kafka, skein := readAnswers(t, kafkaAnswers), readAnswers(t, skeinAnswers)
	for _, c := range allCases {
		want, ok := kafka[c.name]
		if !ok {
			t.Errorf("%s: no recorded answer", c.name)
			continue
		}
		if c.differs != "" {
			if want = skein[c.name]; kafka[c.name] == want {
				t.Errorf("%s: differs from Kafka no more", c.name)
			}
		}
		if got := ownConfig.ReplaceAllString(got[c.name], ""); got != want {
			t.Errorf("%s:\n got %s\nwant %s", c.name, got, want)
		}
	}
}
