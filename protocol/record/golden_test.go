package record

import (
	"bytes"
	"encoding/hex"
	"testing"
)

// TestGoldenBytes pins the formats. A change here is a format change.
func TestGoldenBytes(t *testing.T) {
	b := Builder{BaseOffset: 0x0102, LeaderEpoch: 3, ProducerID: 9, ProducerEpoch: 1, BaseSequence: 4, Transactional: true}
	b.Append(1000, []byte("k"), []byte("value"), KeyValue{"h", []byte{1}})
	b.Append(999, nil, nil)
	modern := b.AppendBatch(nil)
	old, err := DownConvert(nil, modern, 0, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	newer, err := DownConvert(nil, modern, 1, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		got  []byte
		want string
	}{
		{"magic 2", modern, goldenMagic2},
		{"magic 1", newer, goldenMagic1},
		{"magic 0", old, goldenMagic0},
		{"xerial", compressSnappy(nil, []byte("abc")), goldenXerial},
	} {
		want, err := hex.DecodeString(tt.want)
		if err != nil || !bytes.Equal(tt.got, want) {
			t.Errorf("%s:\n got %x\nwant %s", tt.name, tt.got, tt.want)
		}
	}
}

const (
	goldenMagic2 = "0000000000000102" + "00000049" + "00000003" + "02" + "dd216671" + "0010" + "00000001" +
		"00000000000003e8" + "00000000000003e8" + "0000000000000009" + "0001" + "00000004" + "00000002" +
		"20" + "00" + "00" + "00" + "026b" + "0a76616c7565" + "02" + "0268" + "0201" +
		"0c" + "00" + "01" + "02" + "01" + "01" + "00"
	goldenMagic1 = "0000000000000102" + "0000001c" + "ab0d7cf7" + "01" + "00" + "00000000000003e8" + "000000016b" + "0000000576616c7565" +
		"0000000000000103" + "00000016" + "794f2ef8" + "01" + "00" + "00000000000003e7" + "ffffffff" + "ffffffff"
	goldenMagic0 = "0000000000000102" + "00000014" + "8faa5588" + "00" + "00" + "000000016b" + "0000000576616c7565" +
		"0000000000000103" + "0000000e" + "a7ec6803" + "00" + "00" + "ffffffff" + "ffffffff"
	goldenXerial = "82534e4150505900" + "00000001" + "00000001" + "00000005" + "0308616263"
)
