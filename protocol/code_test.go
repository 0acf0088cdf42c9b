package protocol

import (
	"bufio"
	"fmt"
	"os"
	"testing"
)

// The golden file lists what Apache Kafka 4.3's own enum says: number, name, retriable.
func TestCodesAreKafkas(t *testing.T) {
	f, err := os.Open("testdata/golden/codes.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	want := CodeUnknownServerError
	for s := bufio.NewScanner(f); s.Scan(); want++ {
		if got := fmt.Sprintf("%d|%s|%t", int16(want), want, want.Retriable()); got != s.Text() {
			t.Errorf("got %s, want %s", got, s.Text())
		}
		if want.Message() == "" || !want.Valid() {
			t.Errorf("%v has no message", want)
		}
	}
	if want.Valid() || Code(-2).Valid() || want.String() != fmt.Sprintf("UNKNOWN_CODE_%d", int16(want)) {
		t.Errorf("code %d is out of range, yet valid", want)
	}
}
