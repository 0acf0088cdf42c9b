package broker

import (
	"testing"

	"github.com/skeinmq/skein/internal/kconfig"
	"github.com/skeinmq/skein/protocol/record"
)

// TestCompressionLevels: a topic's level, or the broker's, is that of the codec that the topic is stored with.
func TestCompressionLevels(t *testing.T) {
	for _, tt := range []struct {
		topic, broker map[string]string
		codec         record.Codec
		level         record.Level
	}{
		{map[string]string{"compression.type": "gzip"}, nil, record.Gzip, -1},
		{map[string]string{"compression.type": "lz4"}, nil, record.Lz4, 9},
		{map[string]string{"compression.type": "zstd", "compression.gzip.level": "2"}, nil, record.Zstd, 3},
		{map[string]string{"compression.type": "zstd", "compression.zstd.level": "-7"}, map[string]string{"compression.zstd.level": "9"}, record.Zstd, -7},
		{nil, map[string]string{"compression.type": "gzip", "compression.gzip.level": "4"}, record.Gzip, 4},
		{nil, map[string]string{"compression.gzip.level": "4"}, record.None, 0},
	} {
		got := newTopicConfig(kconfig.Layers{Entity: tt.topic, Default: tt.broker}).rules
		if got.Codec != tt.codec || got.Level != tt.level {
			t.Errorf("%v, %v: %s level %d, want %s level %d", tt.topic, tt.broker, got.Codec, got.Level, tt.codec, tt.level)
		}
	}
}
