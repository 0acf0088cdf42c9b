package protocol

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the golden files; a change there is a change of the wire")

// TestGoldenBytes pins what goes over the wire, so that a mistake shared with kmsg, or a new kmsg, shows.
func TestGoldenBytes(t *testing.T) {
	var out bytes.Buffer
	var e FetchEncoder
	for v := int16(0); v <= ProduceMaxVersion; v++ {
		p, _ := produceResponses(v)
		fmt.Fprintf(&out, "produce request v%d %x\n", v, kmsgProduce(v, 1, 2, []byte("records")))
		fmt.Fprintf(&out, "produce response v%d %x\n", v, p.AppendTo(nil, v))
	}
	for v := int16(0); v <= FetchMaxVersion; v++ {
		p, _ := fetchResponses(v)
		bufs, _, err := e.Encode(p, v, 0x01020304)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&out, "fetch request v%d %x\n", v, kmsgFetch(v).AppendTo(nil))
		fmt.Fprintf(&out, "fetch frame v%d %x\n", v, bytes.Join(bufs, nil))
	}
	for _, h := range []RequestHeader{{Key: KeyProduce, Version: 8, CorrelationID: 7, ClientID: "me"}, {Key: KeyProduce, Version: 9, CorrelationID: 7, ClientIDNull: true}, {Key: KeyControlledShutdown, CorrelationID: 7}} {
		fmt.Fprintf(&out, "header %v v%d %x\n", h.Key, h.Version, h.AppendTo(nil))
	}
	const file = "testdata/golden/wire.txt"
	if *update {
		if err := os.WriteFile(file, out.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	got := bytes.Split(out.Bytes(), []byte("\n"))
	for i, line := range bytes.Split(want, []byte("\n")) {
		if i >= len(got) || !bytes.Equal(got[i], line) {
			t.Fatalf("line %d changed:\n got %s\nwant %s", i+1, got[min(i, len(got)-1)], line)
		}
	}
}
