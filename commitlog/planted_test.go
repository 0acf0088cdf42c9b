//go:build skeinplant

package commitlog

import "testing"

// TestPlanted proves that the check of TestCeiling can fail.
//
//	go test -tags skeinplant -run TestPlanted ./commitlog
func TestPlanted(t *testing.T) {
	plants.noCeiling = true
	defer func() { plants.noCeiling = false }()
	if !passedCeiling(t) {
		t.Error("not caught")
	}
}

// TestPlantedAck proves that the check of TestAckAfterWitnesses can fail (O4).
func TestPlantedAck(t *testing.T) {
	plants.ackEarly = true
	defer func() { plants.ackEarly = false }()
	if !earlyAck(t) {
		t.Error("not caught")
	}
}

// TestPlantedSweep proves that the fault sweep can fail: each of these mistakes breaks a
// promise at some fault.
func TestPlantedSweep(t *testing.T) {
	for name, plant := range map[string]*bool{
		"write errors": &plants.writeErrors, "no dsync": &plants.noDsync, "any block": &plants.anyBlock,
		"sort unsynced": &plants.sortUnsynced,
	} {
		t.Run(name, func(t *testing.T) {
			*plant = true
			defer func() { *plant = false }()
			for n := 1; n < 600; n++ {
				for _, rule := range sweepRules {
					if _, err := sweepOne(rule, n); err != nil {
						t.Logf("caught at change %d, %v: %v", n, rule.Effect, err)
						return
					}
				}
			}
			t.Error("not caught")
		})
	}
}
