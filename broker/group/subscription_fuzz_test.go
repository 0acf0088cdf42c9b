package group

import (
	"bytes"
	"encoding/binary"
	"testing"
)

// FuzzSubscription: topics that were read of a subscription stand in it, length before name, and those of a subscription that
// is written anew are the same.
func FuzzSubscription(f *testing.F) {
	f.Add([]byte{0, 1, 0, 0, 0, 1, 0, 2, 't', '1', 0xff, 0xff, 0xff, 0xff})
	f.Add([]byte{0, 3, 0, 0, 0, 2, 0, 0, 0, 1, 'x'})
	f.Add([]byte{0, 0, 0x7f, 0xff, 0xff, 0xff, 0, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		got := map[string]bool{}
		if !addTopics(got, b) {
			return
		}
		again := binary.BigEndian.AppendUint32([]byte{0, 0}, uint32(len(got)))
		for topic := range got {
			entry := append(binary.BigEndian.AppendUint16(nil, uint16(len(topic))), topic...)
			if !bytes.Contains(b, entry) {
				t.Errorf("topic %q is not in %x", topic, b)
			}
			again = append(again, entry...)
		}
		back := map[string]bool{}
		if !addTopics(back, again) || len(back) != len(got) {
			t.Errorf("%d topics of %x, written anew %d", len(got), b, len(back))
		}
	})
}
