package broker

import (
	"cmp"
	"encoding/binary"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kbin"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// The answers of a real Apache Kafka 4.3 to the script of group requests stand in
// testdata/groups/kafka43.json. To ask again, start one afresh with node id 1,
// group.initial.rebalance.delay.ms=0 and group.max.size=3, and:
// go test ./broker -run GroupGolden -record-groups 127.0.0.1:19092
var recordGroups = flag.String("record-groups", "", "bootstrap server of a fresh Apache Kafka to record answers of")

const kafkaGroupAnswers = "testdata/groups/kafka43.json"

// rawClient is one connection that speaks exactly the versions it is told.
type rawClient struct {
	t    testing.TB
	nc   net.Conn
	corr int32
}

func dialRaw(t testing.TB, addr string) *rawClient {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	return &rawClient{t: t, nc: nc}
}

func (c *rawClient) send(req kmsg.Request) {
	c.corr++
	b := kmsg.NewRequestFormatter(kmsg.FormatterClientID("cl")).AppendRequest(nil, req, c.corr)
	if _, err := c.nc.Write(b); err != nil {
		c.t.Fatal(err)
	}
}

func (c *rawClient) receive(req kmsg.Request) kmsg.Response {
	c.nc.SetReadDeadline(time.Now().Add(enough))
	var size [4]byte
	if _, err := io.ReadFull(c.nc, size[:]); err != nil {
		c.t.Fatalf("answer to %s v%d: %v", kmsg.NameForKey(req.Key()), req.GetVersion(), err)
	}
	b := make([]byte, binary.BigEndian.Uint32(size[:]))
	if _, err := io.ReadFull(c.nc, b); err != nil {
		c.t.Fatal(err)
	}
	r := kbin.Reader{Src: b[4:]}
	resp := req.ResponseKind()
	if resp.IsFlexible() {
		kmsg.SkipTags(&r)
	}
	if err := resp.ReadFrom(r.Src); err != nil {
		c.t.Fatalf("answer to %s v%d: %v", kmsg.NameForKey(req.Key()), req.GetVersion(), err)
	}
	return resp
}

func (c *rawClient) ask(req kmsg.Request) kmsg.Response {
	c.send(req)
	return c.receive(req)
}

// groupScript puts requests to one server and writes down what it answers.
type groupScript struct {
	t       testing.TB
	addr    string
	main    *rawClient
	topicID [16]byte
	names   map[string]string // member id → m1, m2 …
	answers []string
}

func newGroupScript(t testing.TB, addr string) *groupScript {
	return &groupScript{t: t, addr: addr, main: dialRaw(t, addr), names: map[string]string{}}
}

var uuidPattern = regexp.MustCompile(`[A-Za-z0-9]+-[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`)

func (s *groupScript) note(what string, resp kmsg.Response) {
	raw, err := json.Marshal(resp)
	if err != nil {
		s.t.Fatal(err)
	}
	named := uuidPattern.ReplaceAllStringFunc(string(raw), func(id string) string {
		if s.names[id] == "" {
			s.names[id] = fmt.Sprintf("%s-m%d", id[:strings.IndexByte(id, '-')], len(s.names)+1)
		}
		return s.names[id]
	})
	var v map[string]any
	if err := json.Unmarshal([]byte(named), &v); err != nil {
		s.t.Fatal(err)
	}
	out, _ := json.Marshal(s.plain(v))
	s.answers = append(s.answers, fmt.Sprintf("%s v%d: %s", what, resp.GetVersion(), out))
}

// plain drops what differs from run to run, and orders what has no order.
func (s *groupScript) plain(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for _, k := range []string{"Version", "ThrottleMillis", "UnknownTags", "Host", "Port"} {
			delete(v, k)
		}
		if v["ErrorCode"] == 42.0 {
			delete(v, "ErrorMessage") // ours says what was wrong with the request
		}
		for k, e := range v {
			if k == "TopicID" {
				v[k] = strings.Trim(fmt.Sprint(e), "[] 0") != ""
				continue
			}
			v[k] = s.plain(e)
		}
	case []any:
		for i := range v {
			v[i] = s.plain(v[i])
		}
		slices.SortStableFunc(v, func(a, b any) int {
			key := func(x any) string {
				m, _ := x.(map[string]any)
				return fmt.Sprint(m["Group"], m["Topic"], m["InstanceID"], m["MemberID"], m["Partition"])
			}
			return cmp.Compare(key(a), key(b))
		})
	}
	return v
}

// do asks on the script's own connection and notes the answer.
func (s *groupScript) do(what string, version int16, req kmsg.Request) kmsg.Response {
	req.SetVersion(version)
	resp := s.main.ask(req)
	s.note(what, resp)
	return resp
}

// park sends on a connection of its own; the returned function waits and notes.
func (s *groupScript) park(what string, version int16, req kmsg.Request) func() kmsg.Response {
	req.SetVersion(version)
	c := dialRaw(s.t, s.addr)
	c.send(req)
	return func() kmsg.Response {
		resp := c.receive(req)
		s.note(what, resp)
		return resp
	}
}

// settle waits until a group has so many members whose joins are parked or done: a parked
// request leaves no other trace.
func (s *groupScript) settle(group string, members int) {
	s.t.Helper()
	for end := time.Now().Add(enough); ; {
		req := kmsg.NewPtrDescribeGroupsRequest()
		req.Groups = []string{group}
		req.SetVersion(4)
		if got := s.main.ask(req).(*kmsg.DescribeGroupsResponse); len(got.Groups[0].Members) == members {
			return
		}
		if time.Now().After(end) {
			s.t.Fatalf("group %s never has %d members", group, members)
		}
	}
}

func TestGroupGolden(t *testing.T) {
	if *recordGroups != "" {
		s := newGroupScript(t, *recordGroups)
		s.run()
		b, _ := json.MarshalIndent(s.answers, "", " ")
		if err := os.MkdirAll("testdata/groups", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(kafkaGroupAnswers, append(b, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	c := startCluster(t, 1, Config{Static: map[string]string{"group.initial.rebalance.delay.ms": "0", "group.max.size": "3", "auto.create.topics.enable": "false"}})
	<-c.b.groups.Ready()
	s := newGroupScript(t, c.addr)
	s.run()
	b, err := os.ReadFile(kafkaGroupAnswers)
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	if err := json.Unmarshal(b, &want); err != nil {
		t.Fatal(err)
	}
	for i := range max(len(want), len(s.answers)) {
		switch {
		case i >= len(want) || i >= len(s.answers):
			t.Fatalf("%d answers, Apache Kafka gave %d", len(s.answers), len(want))
		case want[i] != s.answers[i]:
			t.Errorf("\n skein %s\n kafka %s", s.answers[i], want[i])
		}
	}
}
