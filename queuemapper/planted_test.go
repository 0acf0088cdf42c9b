//go:build skeinplant

package queuemapper

import "testing"

// TestPlanted proves that the checks of TestPublishRules can fail: each mistake makes one of
// them see what must not happen.
//
//	go test -tags skeinplant -run TestPlanted ./queuemapper
func TestPlanted(t *testing.T) {
	t.Run("publish without comparing the target log", func(t *testing.T) {
		plants.noTarget = true
		defer func() { plants.noTarget = false }()
		if !latePublish(t, reopenTarget(t)) {
			t.Error("not caught")
		}
	})
	t.Run("publish without comparing the source log", func(t *testing.T) {
		plants.noSource = true
		defer func() { plants.noSource = false }()
		if !latePublish(t, reopenSource(t)) {
			t.Error("not caught")
		}
	})
	t.Run("unknown move settled by a read", func(t *testing.T) {
		plants.touchReads = true
		defer func() { plants.touchReads = false }()
		if !settledPublish(t) {
			t.Error("not caught")
		}
	})
	t.Run("unknown swap settled by a read", func(t *testing.T) {
		plants.settleReads = true
		defer func() { plants.settleReads = false }()
		if !settledSwap(t) {
			t.Error("not caught")
		}
	})
	t.Run("seal without comparing that another log is open", func(t *testing.T) {
		plants.sealLast = true
		defer func() { plants.sealLast = false }()
		if !lastSealed(t) {
			t.Error("not caught")
		}
	})
	t.Run("new log's registration lands after it was given up", func(t *testing.T) {
		plants.lateNew = true
		defer func() { plants.lateNew = false }()
		if !lateNew(t) {
			t.Error("not caught")
		}
	})
}
