//go:build skeinplant

package witness

import "testing"

// TestPlanted proves that the worlds notice each mistake.
//
//	go test -tags skeinplant -run TestPlanted ./internal/witness
func TestPlanted(t *testing.T) {
	for name, plant := range map[string]*bool{
		"O4 ack before all witnesses":       &plants.ackEarly,
		"O5 gap accepted":                   &plants.gapAccepted,
		"O6 restarted witness says empty":   &plants.emptyAnswer,
		"O7 joiner not awaited":             &plants.joinerNotAwaited,
		"O7 replaced member not awaited":    &plants.replacedNotAwaited,
		"O8 unknown swap settled by a read": &plants.settleByRead,
		"O10 update after the seal":         &plants.afterSeal,
	} {
		t.Run(name, func(t *testing.T) {
			*plant = true
			defer func() { *plant = false }()
			seed, err := sweepWorlds(t, 20_000)
			if err == nil {
				t.Fatal("not caught")
			}
			t.Logf("seed %d: %v", seed, err)
		})
	}
}
