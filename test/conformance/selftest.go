package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// fault is a defect of a broker, planted by the proxy.
type fault struct {
	name     string
	cases    []string // client cases that must fail
	tools    []string // tools that must fail
	request  func(kmsg.Request)
	key      int16 // of the answers that response changes
	response func(kmsg.Response)
	twice    bool              // produce every request twice
	configs  map[string]string // of the topics that the driver creates
}

var faults = []fault{
	{name: "control: the proxy alone", configs: nil},
	{name: "a fetch skips its first batch", cases: []string{"midbatch"}, key: int16(kmsg.Fetch), response: skipFirstBatch},
	{name: "a value is spoiled, its CRC is right", cases: []string{"none", "start"}, tools: []string{"kafka-console-consumer"}, key: int16(kmsg.Fetch), response: spoilValue},
	{name: "batches are stored uncompressed", cases: []string{"gzip"}, configs: map[string]string{"compression.type": "uncompressed"}},
	{name: "a produce is done twice", cases: []string{"zstd", "idempotent"}, tools: []string{"kafka-console-producer", "kafka-producer-perf-test"}, request: forgetProducer, twice: true},
	{name: "an offset for a time is one too high", cases: []string{"timestamp"}, tools: []string{"kafka-get-offsets"}, key: int16(kmsg.ListOffsets), response: laterOffset},
	{name: "a commit stores the offset before", cases: []string{"commit"}, request: commitBefore},
	{name: "two members get the same partitions", cases: []string{"group"}, request: sameShare},
	{name: "a topic gets one partition less", cases: []string{"admin"}, tools: []string{"kafka-topics"}, request: fewerPartitions},
	{name: "no group is listed", cases: []string{"admin"}, tools: []string{"kafka-consumer-groups"}, key: int16(kmsg.ListGroups), response: noGroups},
}

func eachBatches(resp kmsg.Response, f func([]byte) []byte) {
	for _, t := range resp.(*kmsg.FetchResponse).Topics {
		for i := range t.Partitions {
			t.Partitions[i].RecordBatches = f(t.Partitions[i].RecordBatches)
		}
	}
}

func skipFirstBatch(resp kmsg.Response) {
	eachBatches(resp, func(raw []byte) []byte {
		if len(splitBatches(raw)) < 2 {
			return raw
		}
		return raw[12+binary.BigEndian.Uint32(raw[8:]):]
	})
}

// mend writes the CRC of a batch (KIP-98: over everything from the attributes on).
func mend(b []byte) {
	binary.BigEndian.PutUint32(b[17:], crc32.Checksum(b[21:], crc32.MakeTable(crc32.Castagnoli)))
}

func spoilValue(resp kmsg.Response) {
	eachBatches(resp, func(raw []byte) []byte {
		const headerSize = 61
		raw = slices.Clone(raw)
		for rest := raw; len(rest) > headerSize; {
			size := int(12 + binary.BigEndian.Uint32(rest[8:]))
			if size > len(rest) {
				break
			}
			if i := bytes.Index(rest[:size], []byte("abcdefghij")); i > 0 {
				rest[i+9] = 'X'
				mend(rest[:size])
			}
			rest = rest[size:]
		}
		return raw
	})
}

// forgetProducer makes batches such that the broker cannot tell a repeated one.
func forgetProducer(req kmsg.Request) {
	r, ok := req.(*kmsg.ProduceRequest)
	if !ok {
		return
	}
	for _, t := range r.Topics {
		for i := range t.Partitions {
			b := slices.Clone(t.Partitions[i].Records)
			if len(b) < 61 || b[16] != 2 {
				continue
			}
			for j := 43; j < 57; j++ { // producer id, epoch, first sequence: all -1
				b[j] = 0xff
			}
			mend(b)
			t.Partitions[i].Records = b
		}
	}
}

func laterOffset(resp kmsg.Response) {
	for _, t := range resp.(*kmsg.ListOffsetsResponse).Topics {
		for i := range t.Partitions {
			if p := &t.Partitions[i]; p.Timestamp >= 0 && p.Offset >= 0 {
				p.Offset++
			}
		}
	}
}

func commitBefore(req kmsg.Request) {
	if r, ok := req.(*kmsg.OffsetCommitRequest); ok {
		for _, t := range r.Topics {
			for i := range t.Partitions {
				t.Partitions[i].Offset--
			}
		}
	}
}

func sameShare(req kmsg.Request) {
	if r, ok := req.(*kmsg.SyncGroupRequest); ok {
		for i := range r.GroupAssignment {
			r.GroupAssignment[i].MemberAssignment = r.GroupAssignment[0].MemberAssignment
		}
	}
}

func fewerPartitions(req kmsg.Request) {
	if r, ok := req.(*kmsg.CreateTopicsRequest); ok {
		for i := range r.Topics {
			r.Topics[i].NumPartitions--
		}
	}
}

func noGroups(resp kmsg.Response) { resp.(*kmsg.ListGroupsResponse).Groups = nil }

// selftest runs, for each fault, the cases that must see it. It returns the exit code.
func (m *matrix) selftest(ctx context.Context) (int, error) {
	brokers, err := m.stage.adm.ListBrokers(ctx)
	if err != nil || len(brokers) != 1 {
		return 2, fmt.Errorf("self-test: it needs a cluster of one broker, got %d, error %v", len(brokers), err)
	}
	p, err := startProxy(m.stage.addr)
	if err != nil {
		return 2, err
	}
	defer p.close()
	m.stage.clients = p.addr()
	m.o.timeout = min(m.o.timeout, 30*time.Second)
	m.stage.limit = m.o.timeout
	all := m.chosen
	passed, failed := 0, 0
	for i := range faults {
		f := &faults[i]
		m.chosen = aim(all, f)
		m.results = nil
		m.stage.round = fmt.Sprintf("f%d-", i)
		m.stage.configs = f.configs
		p.fault.Store(f)
		m.run(ctx)
		bad := judge(m.results, i == 0)
		fmt.Printf("%-40s %3d cells, %d wrong\n", f.name, len(m.results), len(bad))
		if i > 0 && len(m.results) > 0 {
			fmt.Printf("    for example %s %s: %s\n", m.results[0].Client, m.results[0].Case, oneLine(m.results[0].Text))
		}
		for _, text := range bad {
			fmt.Println("   ", text)
		}
		passed, failed = passed+len(m.results)-len(bad), failed+len(bad)
	}
	fmt.Printf("%d passed, %d failed\n", passed, failed)
	if failed > 0 || passed == 0 {
		return 1, nil
	}
	return 0, nil
}

// aim leaves the cases and tools of a fault; for the control, those of all faults.
func aim(all selection, f *fault) selection {
	s := selection{cases: map[string]bool{}}
	tools := f.tools
	aimed := f.cases
	if aimed == nil {
		for _, other := range faults {
			aimed, tools = append(aimed, other.cases...), append(tools, other.tools...)
		}
	}
	for _, name := range aimed {
		s.cases[name] = all.cases[name]
	}
	s.cases["tool"] = all.cases["tool"]
	for _, c := range all.clients {
		if c.tool == nil || slices.Contains(tools, c.name) {
			s.clients = append(s.clients, c)
		}
	}
	return s
}

// judge returns the cells that are not as they must be: all passed for the
// control, all failed for a fault.
func judge(results []result, control bool) []string {
	var bad []string
	for _, r := range results {
		switch {
		case r.Status == "n/a" || (r.Status == "pass") == control:
		case control:
			bad = append(bad, fmt.Sprintf("%s %s fails without a fault: %s", r.Client, r.Case, oneLine(r.Text)))
		default:
			bad = append(bad, fmt.Sprintf("%s %s MISSED the fault", r.Client, r.Case))
		}
	}
	return bad
}
