package ident

import (
	"slices"
	"testing"
)

func TestUUIDs(t *testing.T) {
	const text = "00112233-4455-6677-8899-aabbccddeeff"
	id, err := ParseLog(text)
	if err != nil || id != (Log{0, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff}) || id.String() != text {
		t.Errorf("ParseLog = %v, %v", id, err)
	}
	for _, bad := range []string{"", text[1:], text + "0", "00112233x4455-6677-8899-aabbccddeeff", "0011223g-4455-6677-8899-aabbccddeeff"} {
		if got, err := ParseTopic(bad); err == nil || got != (Topic{}) {
			t.Errorf("ParseTopic(%q) = %v, %v", bad, got, err)
		}
	}
}

func TestPartitionOrder(t *testing.T) {
	want := []Partition{{Topic{1}, 0}, {Topic{1}, 2}, {Topic{2}, 1}, {Topic{15: 1}, 0}}
	slices.SortFunc(want, Partition.Compare)
	for i := 1; i < len(want); i++ {
		if want[i-1].Compare(want[i]) >= 0 || want[i].Compare(want[i-1]) <= 0 {
			t.Errorf("%v and %v are not in order", want[i-1], want[i])
		}
	}
	if want[0].Topic != (Topic{15: 1}) {
		t.Errorf("first is %v: topics are compared byte by byte", want[0])
	}
}
