package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"hash/crc32"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// makeBatch is a v2 batch: codec zstd, producer 7, sequence 3, five records from offset 40.
func makeBatch(payload string) []byte {
	b := make([]byte, 61, 61+len(payload))
	binary.BigEndian.PutUint64(b, 40)
	binary.BigEndian.PutUint32(b[8:], uint32(61+len(payload)-12))
	b[16] = 2
	b[22] = 4
	binary.BigEndian.PutUint64(b[43:], 7)
	binary.BigEndian.PutUint32(b[53:], 3)
	binary.BigEndian.PutUint32(b[57:], 5)
	b = append(b, payload...)
	mend(b)
	return b
}

func crcHolds(b []byte) bool {
	return binary.BigEndian.Uint32(b[17:]) == crc32.Checksum(b[21:], crc32.MakeTable(crc32.Castagnoli))
}

func TestSplitBatches(t *testing.T) {
	one := makeBatch("abcdefghij")
	want := batch{first: 40, records: 5, codec: "zstd", producer: 7, sequence: 3}
	tests := map[string]struct {
		raw  []byte
		want int
	}{
		"two":       {slices.Concat(one, one), 2},
		"torn":      {slices.Concat(one, one[:30]), 1},
		"no whole":  {one[:len(one)-1], 0},
		"empty":     {nil, 0},
		"bad size":  {append(bytes.Repeat([]byte{0xff}, 12), one...), 0},
		"zero size": {make([]byte, 100), 0},
	}
	for name, tt := range tests {
		got := splitBatches(tt.raw)
		if len(got) != tt.want || (tt.want > 0 && got[0] != want) {
			t.Errorf("%s: %+v, want %d of %+v", name, got, tt.want, want)
		}
	}
}

func TestFaultsKeepBatchesValid(t *testing.T) {
	fetch := kmsg.NewPtrFetchResponse()
	part := kmsg.NewFetchResponseTopicPartition()
	part.RecordBatches = slices.Concat(makeBatch("k-abcdefghij"), makeBatch("other"))
	topic := kmsg.NewFetchResponseTopic()
	topic.Partitions = append(topic.Partitions, part)
	fetch.Topics = append(fetch.Topics, topic)
	spoilValue(fetch)
	raw := fetch.Topics[0].Partitions[0].RecordBatches
	first := raw[:61+12]
	if !bytes.Contains(first, []byte("abcdefghiX")) || !crcHolds(first) {
		t.Errorf("spoiled batch %q, CRC holds %t", first[61:], crcHolds(first))
	}
	skipFirstBatch(fetch)
	if got := splitBatches(fetch.Topics[0].Partitions[0].RecordBatches); len(got) != 1 {
		t.Errorf("%d batches after the first was skipped, want 1", len(got))
	}
	produce := kmsg.NewPtrProduceRequest()
	produce.Topics = []kmsg.ProduceRequestTopic{{Partitions: []kmsg.ProduceRequestTopicPartition{{Records: makeBatch("x")}}}}
	forgetProducer(produce)
	b := produce.Topics[0].Partitions[0].Records
	if got := splitBatches(b); got[0].producer != -1 || got[0].sequence != -1 || !crcHolds(b) {
		t.Errorf("batch without producer: %+v, CRC holds %t", got[0], crcHolds(b))
	}
}

func TestJudge(t *testing.T) {
	cells := []result{{Client: "a", Case: "none", Status: "pass"}, {Client: "b", Case: "none", Status: "fail"}, {Client: "c", Case: "none", Status: "n/a"}}
	if got := judge(cells, true); len(got) != 1 || !strings.Contains(got[0], "b none") {
		t.Errorf("control: %q, want b", got)
	}
	if got := judge(cells, false); len(got) != 1 || !strings.Contains(got[0], "a none MISSED") {
		t.Errorf("fault: %q, want a", got)
	}
}

func TestTableAndCount(t *testing.T) {
	cells := []result{
		{Client: "one", Version: "1.0", Case: "admin", Status: "pass", Text: "no call for this"},
		{Client: "one", Version: "1.0", Case: "gzip", Status: "fail", Text: "it\nbroke"},
		{Client: "two", Version: "2.0", Case: "admin", Status: "n/a", Text: "no admin calls"},
		{Client: "kafka-topics", Version: "3.0", Case: "tool", Status: "pass", tool: true},
	}
	if passed, failed := count(cells); passed != 2 || failed != 1 {
		t.Errorf("count: %d passed, %d failed, want 2 and 1", passed, failed)
	}
	var out bytes.Buffer
	printTable(&out, cells, "a broker")
	for _, want := range []string{"broker: a broker", "one     1.0      ok     FAIL", "two     2.0      n/a    -", "FAIL  one gzip: it broke",
		"note  one admin: no call for this", "n/a  two admin: no admin calls", "kafka-topics         3.0      ok"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("table has no %q:\n%s", want, out.String())
		}
	}
}

func TestChooseRefusesUnknownNames(t *testing.T) {
	for _, o := range []options{{only: []string{"nobody"}}, {cases: []string{"nothing"}}} {
		if _, err := choose(o); err == nil {
			t.Errorf("%+v was accepted", o)
		}
	}
	s, err := choose(options{only: []string{"java"}, cases: []string{"group"}})
	if err != nil || len(s.clients) != 4 || !s.cases["group"] || s.cases["admin"] {
		t.Errorf("java group: %d clients, cases %v, error %v", len(s.clients), s.cases, err)
	}
}

// A client that hangs, dies or talks nonsense must end as a failed case and never stop the run.
func TestRunnerSeesBadClients(t *testing.T) {
	tests := map[string]struct{ script, want string }{
		"passes": {`printf 'hello\t1\n'; read x; printf 'done\tpass\t\n'; read x`, ""},
		"hangs":  {`printf 'hello\t1\n'; read x; exec sleep 60`, "no answer"},
		"dies":   {`printf 'hello\t1\n'; read x; exit 3`, errClientEnded.Error()},
		"babble": {`printf 'hello\t1\n'; read x; printf 'hello\tagain\n'; read x`, "want done"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			r, err := startRunner(context.Background(), []string{"/bin/sh", "-c", tt.script})
			if err != nil {
				t.Fatal(err)
			}
			status, _, err := r.ask(context.Background(), 300*time.Millisecond, map[string]string{"case": "none"})
			if tt.want == "" {
				r.end()
				if err != nil || status != "pass" {
					t.Errorf("status %q, error %v", status, err)
				}
				return
			}
			r.kill()
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
	if _, err := startRunner(context.Background(), []string{filepath.Join(t.TempDir(), "absent")}); err == nil {
		t.Error("started a program that does not exist")
	}
}
