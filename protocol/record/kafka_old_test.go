package record

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"flag"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/skeinmq/skein/protocol"
)

var kafkaOld = flag.String("kafka-old", "", "ask this Apache Kafka 3.9 broker, HOST:PORT, the last line that takes old formats, and rewrite the golden file")

const oldOutcomesFile = "testdata/golden/kafka-3.9-old-formats.txt"

// oldCases are message sets for Produce v2.
func oldCases() []asked {
	var out []asked
	add := func(name string, set []byte, change func(*asked)) {
		a := asked{name: name, version: 2, records: set, config: map[string]string{}, rules: Rules{OldFormats: true, MaxBytes: 1048588}}
		if change != nil {
			change(&a)
		}
		out = append(out, a)
	}
	down := func(c Codec, magic int8) []byte {
		b := Builder{Codec: c}
		b.Append(1000, []byte("k"), []byte("value"))
		b.Append(1002, []byte("l"), nil)
		b.Append(1001, []byte("m"), []byte{})
		set, err := DownConvert(nil, b.AppendBatch(nil), magic, 0, 0)
		if err != nil {
			panic(err)
		}
		return set
	}
	for magic := int8(0); magic <= 1; magic++ {
		name := fmt.Sprintf("magic %d ", magic)
		add(name+"no key on compacted topic", (&message{magic: magic, value: []byte("v"), timestamp: 1}).appendTo(nil), func(a *asked) {
			a.config["cleanup.policy"], a.rules.RequireKeys = "compact", true
		})
		add(name+"cut at the end", append(down(None, magic), down(None, magic)[:20]...), nil)
		inner := down(None, magic)
		inner[len(inner)-1] ^= 1
		add(name+"bad crc", inner, nil)
		add(name+"bad crc within", (&message{magic: magic, codec: Gzip, timestamp: 1, value: compress(nil, Gzip, 0, inner)}).appendTo(nil), nil)
		add(name+"wrapped twice", (&message{magic: magic, codec: Gzip, timestamp: 1, value: compress(nil, Gzip, 0, down(Gzip, magic))}).appendTo(nil), nil)
		add(name+"other magic within", (&message{magic: magic, codec: Gzip, timestamp: 1, value: compress(nil, Gzip, 0, down(None, 1-magic))}).appendTo(nil), nil)
		add(name+"two wrappers", append(down(Gzip, magic), down(Gzip, magic)...), nil)
		for _, c := range codecs[:4] {
			add(name+c.String(), down(c, magic), nil)
			add(name+c.String()+" stamped", down(c, magic), func(a *asked) {
				a.config["message.timestamp.type"], a.rules.LogAppendTime = "LogAppendTime", true
			})
		}
	}
	return out
}

// downBatch is what old fetch versions are asked for.
func downBatch(c Codec) []byte {
	b := Builder{Codec: c}
	b.Append(1000, []byte("k"), []byte("value"), KeyValue{"h", nil})
	b.Append(1002, nil, []byte("other"))
	b.Append(1001, []byte("m"), nil)
	return b.AppendBatch(nil)
}

func TestOldFormatsAreKafkas(t *testing.T) {
	cases := oldCases()
	if *kafkaOld != "" {
		askOld(t, cases)
	}
	golden, err := os.Open(oldOutcomesFile)
	if err != nil {
		t.Fatal(err)
	}
	defer golden.Close()
	want := map[string]string{}
	for s := bufio.NewScanner(golden); s.Scan(); {
		name, outcome, _ := strings.Cut(s.Text(), " | ")
		want[name] = outcome
	}
	for i := range cases {
		name := cases[i].name
		got := cases[i].ours()
		if got != want[name] {
			t.Errorf("%s:\n  ours %s\n kafka %s", name, got, want[name])
		}
	}
	for version, magic := range map[int]int8{1: 0, 3: 1} {
		for _, c := range codecs[:4] {
			name := fmt.Sprintf("fetch v%d %v", version, c)
			theirs, err := hex.DecodeString(want[name])
			if err != nil || len(theirs) == 0 {
				t.Fatalf("%s: golden %v", name, err)
			}
			ours, err := DownConvert(nil, downBatch(c), magic, 0, 0)
			if err != nil || text(t, ours) != text(t, theirs) {
				t.Errorf("%s: %v\n  ours %x\n kafka %x", name, err, ours, theirs)
			}
			// Kafka pads what shrank by conversion with the beginning of a message that clients ignore.
			if c == None && (!bytes.HasPrefix(theirs, ours) || len(theirs)-len(ours) >= overhead) {
				t.Errorf("%s:\n  ours %x\n kafka %x", name, ours, theirs)
			}
			// What wraps them must agree too: offset, magic, attributes and timestamp.
			head := 0
			if c != None {
				head = oldTimestampOff + 8*int(magic)
			}
			if !bytes.Equal(clearSizes(ours[:head]), clearSizes(theirs[:head])) {
				t.Errorf("%s: wrapper\n  ours %x\n kafka %x", name, ours[:head], theirs[:head])
			}
		}
	}
}

// clearSizes drops size and CRC, which depend on the compressor.
func clearSizes(head []byte) []byte {
	if len(head) == 0 {
		return nil
	}
	return append(slices.Clone(head[:lengthOff]), head[magicOff:]...)
}

func askOld(t *testing.T, cases []asked) {
	conn, err := net.Dial("tcp", *kafkaOld)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var out strings.Builder
	run := fmt.Sprint("old-", os.Getpid())
	for i := range cases {
		fmt.Fprintf(&out, "%s | %s\n", cases[i].name, cases[i].theirs(t, conn, fmt.Sprintf("%s-%d", run, i)))
	}
	for _, c := range codecs[:4] {
		topic := run + "-" + c.String()
		a := asked{name: "down", version: 9, records: downBatch(c)}
		if got := a.theirs(t, conn, topic); !strings.HasPrefix(got, "NONE") {
			t.Fatal(got)
		}
		for _, version := range []int16{1, 3} {
			fetch := kmsg.NewPtrFetchRequest()
			fetch.MaxBytes = 1 << 20
			ft, fp := kmsg.NewFetchRequestTopic(), kmsg.NewFetchRequestTopicPartition()
			ft.Topic, fp.PartitionMaxBytes = topic, 1<<20
			ft.Partitions = append(ft.Partitions, fp)
			fetch.Topics = append(fetch.Topics, ft)
			p := ask(t, conn, fetch, version).(*kmsg.FetchResponse).Topics[0].Partitions[0]
			if p.ErrorCode != 0 {
				t.Fatal(protocol.Code(p.ErrorCode))
			}
			fmt.Fprintf(&out, "fetch v%d %v | %x\n", version, c, p.RecordBatches)
		}
	}
	if err := os.WriteFile(oldOutcomesFile, []byte(out.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}
