//go:build skeinplant

package broker

import (
	"testing"
	"time"
)

// TestPlanted proves that the checks of redirects can fail.
//
//	go test -tags skeinplant -run TestPlanted ./broker
func TestPlanted(t *testing.T) {
	t.Run("a host says OFFSET_OUT_OF_RANGE at the end of its run", func(t *testing.T) {
		plants.endOutOfRange = true
		defer func() { plants.endOutOfRange = false }()
		cs, h := moved(t, redirecting(nil))
		err := consumeRedirected(t, cs[1], h, 3*time.Second, 0, nil)
		if err == nil {
			t.Error("not caught")
		}
		t.Log(err)
	})
	t.Run("a host says OFFSET_OUT_OF_RANGE to librdkafka", func(t *testing.T) {
		plants.endOutOfRange = true
		defer func() { plants.endOutOfRange = false }()
		cs, h := moved(t, redirecting(nil))
		err := kcatReads(t, cs[1], h)
		if err == nil {
			t.Error("not caught")
		}
		t.Log(err)
	})
	t.Run("an owner redirects a client that came back", func(t *testing.T) {
		plants.tellAlways = true
		defer func() { plants.tellAlways = false }()
		cs, _ := moved(t, redirecting(nil))
		if records, redirects := stubborn(cs[1], 6); redirects == 1 && records > 0 {
			t.Error("not caught")
		}
	})
}
