package protocol

import "testing"

func BenchmarkDecodeProduce(b *testing.B) {
	records := make([]byte, 1024)
	for _, bb := range []struct {
		name               string
		topics, partitions int
	}{{"1x1", 1, 1}, {"10x10", 10, 10}} {
		b.Run(bb.name, func(b *testing.B) {
			body := kmsgProduce(9, bb.topics, bb.partitions, records)
			var q ProduceRequest
			b.ReportAllocs()
			for b.Loop() {
				if err := q.Decode(body, 9); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkDecodeFetch(b *testing.B) {
	body := kmsgFetch(17).AppendTo(nil)
	var q FetchRequest
	b.ReportAllocs()
	for b.Loop() {
		if err := q.Decode(body, 17); err != nil {
			b.Fatal(err)
		}
	}
}

// hundredPartitions is an answer with two batches for each of 100 partitions.
func hundredPartitions() *FetchResponse {
	batch := make([]byte, 1024)
	p := &FetchResponse{Topics: make([]FetchResponseTopic, 1)}
	p.Topics[0].Partitions = make([]FetchResponsePartition, 100)
	for i := range p.Topics[0].Partitions {
		q := &p.Topics[0].Partitions[i]
		q.Reset(int32(i))
		q.Records = append(q.Records, batch, batch)
	}
	return p
}

func BenchmarkEncodeFetch100(b *testing.B) {
	p := hundredPartitions()
	var e FetchEncoder
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := e.Encode(p, 17, 1); err != nil {
			b.Fatal(err)
		}
	}
}

// TestHotPathsDoNotAllocate is the ceiling that the benchmarks only show.
func TestHotPathsDoNotAllocate(t *testing.T) {
	body := kmsgProduce(9, 10, 10, make([]byte, 64))
	fetch := kmsgFetch(17).AppendTo(nil)
	frame := append((&RequestHeader{Key: KeyProduce, Version: 9, ClientID: "client"}).AppendTo(nil), body...)
	var h RequestHeader
	var q ProduceRequest
	var f FetchRequest
	var e FetchEncoder
	resp, fresp := &ProduceResponse{Topics: []ProduceResponseTopic{{Name: "t", Partitions: make([]ProduceResponsePartition, 10)}}}, hundredPartitions()
	var out []byte
	allocs := testing.AllocsPerRun(100, func() {
		b, err := h.Parse(frame)
		if err != nil {
			t.Fatal(err)
		}
		if err := q.Decode(b, 9); err != nil {
			t.Fatal(err)
		}
		if err := f.Decode(fetch, 17); err != nil {
			t.Fatal(err)
		}
		out = resp.AppendTo(out[:0], 9)
		if _, _, err := e.Encode(fresp, 17, 1); err != nil {
			t.Fatal(err)
		}
	})
	if allocs != 0 {
		t.Errorf("got %v allocations, want none", allocs)
	}
}
