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
