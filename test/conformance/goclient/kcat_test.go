package goclient

import (
	"testing"

	"github.com/skeinmq/skein/test/conformance/record"
)

func TestParseKcat(t *testing.T) {
	set := record.Set{Salt: "s", TimeBase: 1000, Loose: true}
	lines := map[string]bool{
		"0\x1f1\x1f5\x1f5\x1fkey-1\x1f14\x1fs-1-abcdefghij\x1fidx=all,bin=\xff\xfe\x01,empty=\x1e": true,
		"0\x1f9\x1f5\x1f5\x1fkey-9\x1f-1\x1f\x1fidx=all,bin=\xff\xfe\x01,empty=\x1e":               true,
		"0\x1f9\x1f5\x1f5\x1fkey-9\x1f0\x1f\x1fidx=all,bin=\xff\xfe\x01,empty=\x1e":                false, // empty is not null
		"0\x1f1\x1f5\x1f5\x1fkey-1\x1f14\x1fs-1-abcdefghij\x1fidx=all,bin=\xff\xfe\x01\x1e":        false,
	}
	for line, good := range lines {
		r, err := parseKcat([]byte(line))
		if err != nil {
			t.Fatal(err)
		}
		if err := set.Check(r); (err == nil) != good {
			t.Errorf("%q: %v, want good %t", line, err, good)
		}
	}
	if _, err := parseKcat([]byte("% some message\x1e")); err == nil {
		t.Error("a line that is no record was accepted")
	}
}
